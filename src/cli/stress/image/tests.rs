use super::{EMBEDDED, Image, parse};

#[test]
fn the_embedded_image_has_tests_with_names_of_their_own() {
    let image = Image::open(None).unwrap();
    let mut names: Vec<&str> = image.tests().iter().map(|test| test.name()).collect();
    assert!(names.contains(&"boot.reaches_its_tests"), "{names:?}");
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert_eq!(std::fs::read(image.path()).unwrap(), EMBEDDED);
}

#[test]
fn an_address_in_a_test_has_the_name_of_a_function() {
    let image = Image::open(None).unwrap();
    let body = image.tests()[0].body;
    let symbol = image.symbol(body + 1).expect("a function");
    assert!(symbol.ends_with("+0x1"), "{symbol}");
    assert_eq!(image.symbol(0), None);
    assert_eq!(image.symbol(u64::MAX), None);
}

#[test]
fn what_is_not_ours_is_refused() {
    assert!(parse(b"").is_err());
    assert!(parse(b"\x7fELF and no more").is_err());
    assert!(parse(&EMBEDDED[..EMBEDDED.len() / 2]).is_err());
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(parse(&program).err().unwrap(), "no tests in it");
    // The first record's magic.
    let mut other = EMBEDDED.to_vec();
    let magic = vmm::test_record::MAGIC.to_le_bytes();
    let name = b"boot.reaches_its_tests";
    let at = other.windows(name.len()).position(|bytes| bytes == name).unwrap() - 32;
    assert_eq!(other[at..at + 4], magic);
    other[at] ^= 1;
    assert_eq!(parse(&other).err().unwrap(), "its tests are of another version");
}
