use super::*;

#[test]
fn a_file_keeps_its_path_unless_it_is_given_one() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    assert_eq!(parse_file(manifest).unwrap().guest, manifest);
    let renamed = parse_file(&format!("{manifest}:/x.toml")).unwrap();
    assert_eq!(renamed, Copy { host: manifest.into(), guest: "/x.toml".to_owned() });
    assert_eq!(guest_path("./target/x").unwrap(), "target/x");
}

#[test]
fn a_file_that_is_not_there_or_has_no_place_is_refused() {
    assert!(parse_file("/no/such/file").is_err());
    assert!(parse_file(env!("CARGO_MANIFEST_DIR")).is_err());
    assert!(guest_path("../x").is_err());
    assert!(parse_file(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml:/")).is_err());
}

#[test]
fn copy_out_needs_both_paths() {
    assert_eq!(parse_copy_out("/a:b").unwrap(), Copy { host: "b".into(), guest: "/a".to_owned() });
    for bad in ["/a", "/a:", ":b", ""] {
        assert!(parse_copy_out(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_variable_needs_a_name_and_a_value_that_may_be_empty() {
    assert_eq!(parse_variable("A=b=c").unwrap(), ("A".to_owned(), "b=c".to_owned()));
    assert_eq!(parse_variable("_a1=").unwrap(), ("_a1".to_owned(), String::new()));
    for bad in ["A", "=x", "1A=x", "A;b=x", ""] {
        assert!(parse_variable(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_disk_needs_its_image() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let disk = find_disk(image.path()).unwrap();
    assert!(disk.kept && disk.image == image.path());
    let error = find_disk(Path::new("/nowhere/disk")).unwrap_err();
    assert_eq!(crate::failure::report(&error), 2, "{error}");
}
