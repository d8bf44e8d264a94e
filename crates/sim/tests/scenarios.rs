//! The stories of the controllers: `scenarios/*.txt`, commands and what they print. `UPDATE_EXPECT=1` writes them anew.

use std::path::PathBuf;

use expect_test::expect_file;
use sim::scenario::play;

#[test]
fn scenarios_print_what_they_say() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        let played = play(&script).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        expect_file![&file].assert_eq(&played);
    }
}
