//! Builds: lists of files and Containerfiles.

use expect_test::expect;

use super::*;

#[test]
fn equal_builds_give_equal_images() {
    let (_folder, store) = store();
    let build = |name: &str, text: &str| {
        let files = [
            FileEntry::new("/bin/server", 0o755, Content::Bytes(text.into())),
            FileEntry::new("/bin/sh", 0o777, Content::Symlink("server".into())),
        ];
        let change = |config: &mut oci_spec::image::Config| {
            config.set_labels(Some(
                [("a", "1"), ("b", "2"), ("c", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ));
        };
        store.build(name, None, &files, change).unwrap().id
    };
    assert_eq!(build("web:v1", "one"), build("web:v1-again", "one"));
    assert_ne!(build("web:v1", "one"), build("web:v2", "two"));
}

#[test]
fn files_land_where_links_of_the_base_lead_and_folders_keep_their_rights() {
    let (_folder, store) = store();
    let base = archive(&[
        Item::Folder("tmp", 0o1777),
        Item::File("usr/lib/libc", 0o644, "c"),
        Item::Symlink("lib", "usr/lib"),
    ]);
    let layers = vec![base];
    let mut source =
        |index: usize| -> Result<Box<dyn Read>, Error> { Ok(Box::new(io::Cursor::new(layers[index].clone()))) };
    store.install(&config_for(&layers), &mut source, &[Name::parse("base:v1").unwrap()], None, false).unwrap();
    let files = [
        FileEntry::new("/lib/libz", 0o644, Content::Bytes(b"z".to_vec())),
        FileEntry::new("/tmp/note", 0o600, Content::Bytes(b"n".to_vec())),
        FileEntry::new("/tmp", 0o700, Content::Folder),
    ];
    let image = store.build("web:v1", Some("base:v1"), &files, |_| {}).unwrap();
    let top = image.config.rootfs().diff_ids().last().unwrap().clone();
    expect![[r#"
        tmp/ 1777
        tmp/note 600 "n"
        usr/ 755
        usr/lib/ 755
        usr/lib/libz 644 "z"
    "#]]
    .assert_eq(&listing(&store.layer(&top).unwrap().join("fs")));
    let found = store.tree("web:v1").unwrap().find(Path::new("/lib/libc")).unwrap();
    assert_eq!(found.path, Path::new("usr/lib/libc"));
    assert!(found.on_disk.is_some());
}

fn context(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

#[test]
fn a_containerfile() {
    let (_folder, store) = store();
    store
        .build("base:v1", None, &[FileEntry::new("/srv/old", 0o644, Content::Bytes(b"o".to_vec()))], |config| {
            config.set_cmd(Some(vec!["base".to_owned()]));
            config.set_env(Some(vec!["PATH=/bin".to_owned(), "A=base".to_owned()]));
        })
        .unwrap();
    let context = context(&[
        (
            "Containerfile",
            "# a comment\nFROM base:v1 AS web\nENV A=1 B=\"two words\" C=$A \\\n    D='$A'\nENV OLD form of it\nWORKDIR /srv\nWORKDIR app\nCOPY page.html ./\nCOPY site /srv/site/\nCOPY [\"page.html\", \"/srv/old\"]\nADD --chmod=755 --chown=5:6 run.sh /usr/local/bin/${A}run\nLABEL version=\"1\" note=x\nEXPOSE 80 53/udp\nUSER 33\nSTOPSIGNAL SIGQUIT\nENTRYPOINT [\"/usr/local/bin/run\"]\n",
        ),
        ("page.html", "page"),
        ("site/css/a.css", "css"),
        ("run.sh", "#!/bin/sh"),
    ]);
    let image = store.build_containerfile("web:v1", None, context.path()).unwrap();
    let mut config = serde_json::to_value(image.config.config()).unwrap();
    config.sort_all_objects();
    expect![[r#""#]].assert_eq(&serde_json::to_string_pretty(&config).unwrap());
    let top = image.config.rootfs().diff_ids().last().unwrap().clone();
    expect![[r#""#]].assert_eq(&listing(&store.layer(&top).unwrap().join("fs")));
}

#[test]
fn what_a_containerfile_cannot_ask_for() {
    let (_folder, store) = store();
    let mut seen = String::new();
    for text in [
        "",
        "COPY a b",
        "FROM scratch\n\nRUN apt-get update",
        "FROM scratch\nFROM scratch",
        "FROM nothing:here",
        "FROM scratch\nCOPY missing /x",
        "FROM scratch\nCOPY ../outside /x",
        "FROM scratch\nCOPY link /x",
        "FROM scratch\nCOPY *.html /x",
        "FROM scratch\nADD https://example.com/x /x",
        "FROM scratch\nADD a.tar.gz /x",
        "FROM scratch\nCOPY --from=other a /x",
        "FROM scratch\nENV A",
        "FROM scratch\nENV A=${B:-c}",
        "FROM scratch\nENV A=\"open",
        "FROM scratch\nEXPOSE web",
        "FROM scratch\nCMD [one]",
        "FROM scratch\nARG X",
        "FROM scratch\nFOO bar",
        "FROM scratch\nUSER",
        "FROM scratch\nCOPY only",
        "FROM --platform=linux/arm64 scratch",
    ] {
        let context = context(&[("Dockerfile", text), ("a", "a")]);
        std::os::unix::fs::symlink("/etc/passwd", context.path().join("link")).unwrap();
        seen += &format!("{}\n", store.build_containerfile("web:v1", None, context.path()).unwrap_err());
    }
    expect![[r#""#]].assert_eq(&seen);
    let ignoring = context(&[("Dockerfile", "FROM scratch"), (".dockerignore", "*.o")]);
    assert!(
        store
            .build_containerfile("web:v1", None, ignoring.path())
            .unwrap_err()
            .to_string()
            .contains(".dockerignore is not supported")
    );
    assert!(store.list().unwrap().is_empty());
}
