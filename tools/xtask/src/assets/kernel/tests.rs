use super::*;

fn package(lib: &str) -> tempfile::TempDir {
    let part = tempfile::tempdir().unwrap();
    fs::create_dir_all(part.path().join("boot")).unwrap();
    fs::write(part.path().join("boot/System.map-6.1.0-1"), "").unwrap();
    fs::write(part.path().join("boot/vmlinuz-6.1.0-1"), "").unwrap();
    fs::create_dir_all(part.path().join(lib).join("modules/6.1.0-1")).unwrap();
    part
}

#[test]
fn image_release_and_modules_are_found_in_both_layouts() {
    for lib in ["lib", "usr/lib"] {
        let part = package(lib);
        let kernel = look(part.path()).unwrap();
        assert_eq!(kernel.release, "6.1.0-1");
        assert_eq!(kernel.image, part.path().join("boot/vmlinuz-6.1.0-1"));
        assert_eq!(kernel.modules, part.path().join(lib).join("modules/6.1.0-1"));
    }
}

#[test]
fn a_package_without_an_image_is_refused() {
    let part = package("lib");
    fs::remove_file(part.path().join("boot/vmlinuz-6.1.0-1")).unwrap();
    assert!(look(part.path()).is_err());
}
