use super::*;

#[test]
fn the_control_file_has_one_field_a_line_and_a_description() {
    let text = control("1.2.3", 99);
    for field in ["Package: tophalf", "Version: 1.2.3", "Architecture: amd64", "Installed-Size: 99"] {
        assert!(text.lines().any(|line| line == field), "{text}");
    }
    let (_, description) = text.split_once("Description: ").expect("it has one");
    // What follows the synopsis is indented, or it would be fields.
    assert!(description.lines().count() > 1 && description.lines().skip(1).all(|line| line.starts_with(' ')));
    assert!(text.ends_with('\n'));
}

#[test]
fn files_get_their_modes_whatever_the_umask() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let root = Root(folder.path().join("root"));
    root.write("usr/bin/x", b"12345", 0o755).expect("written");
    root.write("usr/share/y", b"6", 0o644).expect("written");
    let mode = |path: &str| fs::metadata(root.0.join(path)).expect("there").permissions().mode() & 0o7777;
    assert_eq!(["", "usr", "usr/bin", "usr/bin/x", "usr/share/y"].map(mode), [0o755, 0o755, 0o755, 0o755, 0o644]);
    assert_eq!(size(&root.0).expect("readable"), 6);
    assert_eq!(names(&root.0.join("usr")).expect("readable"), ["bin", "share"]);
}
