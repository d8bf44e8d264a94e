//! Archives: what `docker save`, `skopeo` and `buildctl` write.

use expect_test::expect;
use serde_json::json;

use super::*;

fn write_tar(path: &Path, files: &[(&str, &[u8])], links: &[(&str, &str)]) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }
    builder.finish().unwrap();
}

fn layers() -> Vec<Vec<u8>> {
    vec![
        archive(&[Item::File("etc/a", 0o644, "lower"), Item::File("etc/b", 0o644, "b")]),
        archive(&[Item::File("etc/a", 0o644, "upper"), Item::File("etc/.wh.b", 0o644, "")]),
    ]
}

/// The blobs of an OCI layout with one image, and the descriptor of its manifest.
fn layout(layers: &[Vec<u8>]) -> (Vec<(String, Vec<u8>)>, serde_json::Value) {
    let mut blobs = Vec::new();
    let mut blob = |media_type: &str, content: Vec<u8>| {
        let digest = digest_of(&content);
        let size = content.len();
        blobs.push((format!("blobs/{}", digest.replace(':', "/")), content));
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let config = blob("application/vnd.oci.image.config.v1+json", config_for(layers));
    let packed: Vec<_> =
        layers.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip(layer))).collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": packed });
    let manifest = blob("application/vnd.oci.image.manifest.v1+json", serde_json::to_vec(&manifest).unwrap());
    (blobs, manifest)
}

#[test]
fn a_docker_archive_with_two_images_and_linked_layers() {
    let (folder, store) = store();
    let layers = layers();
    let (one, two) = (config_for(&layers), config_for(&layers[..1]));
    let list = json!([
        { "Config": "one.json", "RepoTags": ["web:v1", "example.com/team/web:v1"], "Layers": ["x/layer.tar", "y/layer.tar"] },
        { "Config": "two.json", "RepoTags": ["web:v2"], "Layers": ["z/layer.tar"] },
    ]);
    let path = folder.path().join("saved.tar");
    write_tar(
        &path,
        &[
            ("one.json", &one),
            ("two.json", &two),
            ("x/layer.tar", &layers[0]),
            ("y/layer.tar", &layers[1]),
            ("manifest.json", list.to_string().as_bytes()),
        ],
        &[("z/layer.tar", "../x/layer.tar")],
    );
    let imported = store.import(&path, None).unwrap();
    let names: Vec<_> = imported.iter().map(|image| image.names.join(" ")).collect();
    assert_eq!(names, ["web:v1 example.com/team/web:v1", "web:v2"]);
    let listed: Vec<_> =
        store.list().unwrap().into_iter().map(|line| format!("{} {}", line.name, line.size_bytes)).collect();
    assert_eq!(listed, ["web:v1 11", "web:v2 6", "example.com/team/web:v1 11"]);
    let image = store.get("docker.io/library/web:v1").unwrap();
    assert_eq!(image.id, digest_of(&one));
    assert_eq!(image.config.config().as_ref().unwrap().stop_signal().as_deref(), Some("SIGQUIT"));
    assert_eq!(store.inspect("web:v1").unwrap(), one);
    assert_eq!(store.get(&image.id).unwrap().id, image.id);

    // The layer that both share stays until the last name is gone.
    assert_eq!(store.remove("web:v1").unwrap().layers_deleted, 0);
    assert_eq!(store.remove("example.com/team/web:v1").unwrap().layers_deleted, 1);
    assert_eq!(store.remove("web:v2").unwrap().layers_deleted, 1);
    assert!(matches!(store.remove("web:v2"), Err(Error::NotFound(_))));
    assert!(names_in(&store.path("layers")).unwrap().is_empty());
    assert!(names_in(&store.path("configs")).unwrap().is_empty());
    assert!(names_in(&store.path("tmp")).unwrap().is_empty());
}

#[test]
fn a_compressed_docker_archive() {
    let (folder, store) = store();
    let layers = layers();
    let list = json!([{ "Config": "c.json", "RepoTags": ["web:v1"], "Layers": ["0", "1"] }]);
    let plain = folder.path().join("plain.tar");
    write_tar(
        &plain,
        &[
            ("c.json", &config_for(&layers)),
            ("0", &layers[0]),
            ("1", &layers[1]),
            ("manifest.json", list.to_string().as_bytes()),
        ],
        &[],
    );
    let path = folder.path().join("saved.tar.gz");
    fs::write(&path, gzip(&fs::read(&plain).unwrap())).unwrap();
    assert_eq!(store.import(&path, None).unwrap().len(), 1);
}

#[test]
fn an_oci_layout_as_folder_and_as_archive() {
    let layers = layers();
    let (blobs, manifest) = layout(&layers);
    let named = |key: &str, value: &str| {
        let mut manifest = manifest.clone();
        manifest["annotations"] = json!({ key: value });
        manifest
    };
    let index = json!({ "schemaVersion": 2, "manifests": [named("io.containerd.image.name", "docker.io/library/web:v1"), named("org.opencontainers.image.ref.name", "v2")] });
    let (folder, store) = store();
    let layout = folder.path().join("layout");
    for (path, content) in &blobs {
        let path = layout.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let error = store.import(&layout, None).unwrap_err().to_string();
    assert!(
        error.ends_with("it gives its image only the tag \"v2\"; give the rest of the name with --name"),
        "{error}"
    );
    let imported = store.import(&layout, Some("example.com/web")).unwrap();
    assert_eq!(imported[0].names, ["web:v1", "example.com/web:v2"]);
    let digest = manifest["digest"].as_str().unwrap();
    assert_eq!(store.get(&format!("web@{digest}")).unwrap().id, digest_of(&config_for(&layers)));
    assert!(store.get(&format!("other@{digest}")).is_none());

    let path = folder.path().join("layout.tar");
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string();
    let mut files: Vec<(&str, &[u8])> =
        blobs.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    files.push(("index.json", index.as_bytes()));
    write_tar(&path, &files, &[]);
    assert_eq!(store.import(&path, Some("nameless:v3")).unwrap()[0].names, ["nameless:v3"]);
}

#[test]
fn an_index_gives_the_image_for_this_machine() {
    let layers = layers();
    let (mut blobs, manifest) = layout(&layers);
    let platform = |architecture: &str, mut manifest: serde_json::Value| {
        manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifest
    };
    let ours = oci_spec::image::Arch::default().to_string();
    let other = json!({ "mediaType": manifest["mediaType"], "digest": digest_of(b"other"), "size": 5 });
    let inner =
        json!({ "schemaVersion": 2, "manifests": [platform("s390x", other), platform(&ours, manifest)] }).to_string();
    let digest = digest_of(inner.as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": inner.len() }] }).to_string();
    blobs.push((format!("blobs/{}", digest.replace(':', "/")), inner.into_bytes()));
    let (folder, store) = store();
    let path = folder.path().join("layout.tar");
    let mut files: Vec<(&str, &[u8])> =
        blobs.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    files.push(("index.json", index.as_bytes()));
    write_tar(&path, &files, &[]);
    let image = &store.import(&path, Some("web:v1")).unwrap()[0].image;
    assert_eq!(image.id, digest_of(&config_for(&layers)));
}

#[test]
fn wrong_archives_say_what_is_wrong_and_leave_nothing() {
    let (folder, store) = store();
    let layers = layers();
    let config = config_for(&layers);
    let foreign =
        String::from_utf8(config.clone()).unwrap().replace(&oci_spec::image::Arch::default().to_string(), "s390x");
    let list = |config: &str, layers: &[&str], tag: &str| {
        json!([{ "Config": config, "RepoTags": [tag], "Layers": layers }]).to_string()
    };
    let (good, few, missing) =
        (list("c", &["0", "1"], "web:v1"), list("c", &["0"], "web:v1"), list("c", &["0", "2"], "web:v1"));
    let (swapped, bad_name, out) =
        (list("c", &["1", "0"], "web:v1"), list("c", &["0", "1"], "Web:v1"), list("../../c", &["0", "1"], "web:v1"));
    let nameless = json!([{ "Config": "c", "RepoTags": null, "Layers": ["0", "1"] }]).to_string();
    let mut seen = String::new();
    for (config, list) in [
        (config.as_slice(), &few),
        (&config, &missing),
        (&config, &swapped),
        (&config, &bad_name),
        (&config, &out),
        (&config, &nameless),
        (foreign.as_bytes(), &good),
        (b"{", &good),
    ] {
        let path = folder.path().join("saved.tar");
        write_tar(
            &path,
            &[("c", config), ("0", &layers[0]), ("1", &layers[1]), ("manifest.json", list.as_bytes())],
            &[],
        );
        let error = store.import(&path, None).unwrap_err().to_string();
        seen += &format!("{}\n", error.replace(folder.path().to_str().unwrap(), ""));
    }
    fs::write(folder.path().join("empty.tar"), "").unwrap();
    seen += &format!(
        "{}\n",
        store
            .import(&folder.path().join("empty.tar"), None)
            .unwrap_err()
            .to_string()
            .replace(folder.path().to_str().unwrap(), "")
    );
    expect![[r#"
        cannot import /saved.tar: c names 2 layers, the archive has 1
        cannot import /saved.tar: layer "2" is missing in it
        cannot import /saved.tar: layer sha256:6c5f0ca3369831e135cdc8dd3be56860087d9a1dd4e4786646c57e8263612271: its content has the digest sha256:64f9b8aabfeda36efd59c592a48940aabd55dc83c940b662b99a83f5dc1ea446; it was damaged on the way or is not the layer of this image
        cannot import /saved.tar: couldn't parse image name "Web:v1": invalid reference format: repository name (library/Web) must be lowercase
        cannot import /saved.tar: "../../c" is missing in it
        cannot import /saved.tar: it holds an image without a name; give it one with --name
        cannot import /saved.tar: the image is made for linux/s390x; this node is linux/amd64
        cannot import /saved.tar: the image's configuration is not valid: EOF while parsing an object at line 1 column 1
        cannot import /empty.tar: it has neither index.json (OCI layout) nor manifest.json (docker save)
    "#]].assert_eq(&seen);
    store.sweep().unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(names_in(&store.path("layers")).unwrap().is_empty());
    assert!(names_in(&store.path("tmp")).unwrap().is_empty());
}

#[test]
fn what_a_crash_leaves_is_swept_but_not_from_under_another_process() {
    let (folder, store) = store();
    let half = store.path("tmp").join("work-crashed");
    fs::create_dir_all(half.join("fs/etc")).unwrap();
    let stray = store.path("layers").join("a".repeat(64));
    fs::create_dir_all(stray.join("fs")).unwrap();
    let adding = store.adding().unwrap();
    let other = Store::open(folder.path()).unwrap();
    assert!(half.exists() && stray.exists());
    drop(adding);
    assert_eq!(other.sweep().unwrap(), 1);
    assert!(!half.exists() && !stray.exists());
}

#[test]
fn a_damaged_or_newer_names_file_is_refused() {
    let (folder, store) = store();
    fs::write(store.path("refs.json"), "{ torn").unwrap();
    assert!(store.find("web:v1").unwrap_err().to_string().contains("is damaged"));
    assert!(store.get("web:v1").is_none());
    assert!(Store::open(folder.path()).is_err());
    fs::write(store.path("refs.json"), r#"{ "version": 9, "images": {} }"#).unwrap();
    assert!(Store::open(folder.path()).unwrap_err().to_string().contains("has version 9"));
}
