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
    let image = store.build_containerfile("web:v1", context.path(), None).unwrap();
    let mut config = serde_json::to_value(image.config.config()).unwrap();
    config.sort_all_objects();
    expect![[r#"
        {
          "Entrypoint": [
            "/usr/local/bin/run"
          ],
          "Env": [
            "PATH=/bin",
            "A=1",
            "B=two words",
            "C=base",
            "D=$A",
            "OLD=form of it"
          ],
          "ExposedPorts": {
            "53/udp": {},
            "80/tcp": {}
          },
          "Labels": {
            "note": "x",
            "version": "1"
          },
          "StopSignal": "SIGQUIT",
          "User": "33",
          "WorkingDir": "/srv/app"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&config).unwrap());
    let top = image.config.rootfs().diff_ids().last().unwrap().clone();
    expect![[r##"
        srv/ 755
        srv/app/ 755
        srv/app/page.html 644 "page"
        srv/old 644 "page"
        srv/site/ 755
        srv/site/css/ 755
        srv/site/css/a.css 644 "css"
        usr/ 755
        usr/local/ 755
        usr/local/bin/ 755
        usr/local/bin/1run 755 "#!/bin/sh"
    "##]]
    .assert_eq(&listing(&store.layer(&top).unwrap().join("fs")));
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
        seen += &format!("{}\n", store.build_containerfile("web:v1", context.path(), None).unwrap_err());
    }
    expect![[r#"
        Dockerfile has no FROM; start it with FROM scratch or FROM an image of `kapstan image ls`
        Dockerfile line 1: COPY before FROM; start with FROM scratch or FROM an image
        Dockerfile line 3: RUN is not supported: kapstan starts no build containers; run the step beforehand and COPY its result, or import an image built elsewhere with `kapstan image import`
        Dockerfile line 2: a second FROM (a multi-stage build) is not supported: build the other image by itself and FROM it
        Dockerfile line 1: image "nothing:here" is not on this node; see `kapstan image ls`, or get it with `kapstan image import` or `build`
        Dockerfile line 2: missing: No such file or directory (os error 2) (paths are relative to the build folder)
        Dockerfile line 2: ../outside: No such file or directory (os error 2) (paths are relative to the build folder)
        Dockerfile line 2: link lies outside of the build folder; copy it in there first
        Dockerfile line 2: *.html: patterns are not supported; name the files, or COPY the folder
        Dockerfile line 2: ADD of https://example.com/x is not supported: fetch it beforehand and COPY it
        Dockerfile line 2: ADD would unpack a.tar.gz, which is not supported: unpack it beforehand and COPY the folder, or COPY the archive as it is
        Dockerfile line 2: --from=other is not supported (--chmod and --chown are)
        Dockerfile line 2: write A=VALUE
        Dockerfile line 2: only $NAME and ${NAME} are expanded; write \$ for a dollar sign
        Dockerfile line 2: has a quote that is not closed
        Dockerfile line 2: "web" is not a port: write 80, 80/tcp or 53/udp
        Dockerfile line 2: [one] is not a JSON list of texts (expected value at line 1 column 2); write ["one", "two"] with double quotes
        Dockerfile line 2: ARG is not supported: write the value, or set it with ENV
        Dockerfile line 2: FOO is not an instruction known here (FROM, COPY, ADD, ENV, WORKDIR, USER, EXPOSE, LABEL, STOPSIGNAL, ENTRYPOINT, CMD)
        Dockerfile line 2: USER needs an argument
        Dockerfile line 2: write COPY SOURCE… TARGET
        Dockerfile line 1: write FROM IMAGE
    "#]].assert_eq(&seen);
    let ignoring = context(&[("Dockerfile", "FROM scratch"), (".dockerignore", "*.o")]);
    assert!(
        store
            .build_containerfile("web:v1", ignoring.path(), None)
            .unwrap_err()
            .to_string()
            .contains(".dockerignore is not supported")
    );
    assert!(store.list().unwrap().is_empty());
}
