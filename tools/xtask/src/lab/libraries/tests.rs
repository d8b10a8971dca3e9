use super::*;

#[test]
fn libraries_and_the_dynamic_linker_are_taken_but_not_the_vdso() {
    let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f11)\n\
                \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f10)\n\
                \t/lib64/ld-linux-x86-64.so.2 (0x00007f12)\n";
    let expected =
        ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
    assert_eq!(parse(text), Ok(expected.map(PathBuf::from).to_vec()));
}

#[test]
fn a_missing_library_is_named() {
    assert_eq!(parse("\tlibodd.so.1 => not found\n"), Err("libodd.so.1".to_owned()));
}

#[test]
fn a_static_program_needs_none() {
    assert_eq!(parse("\tstatically linked\n"), Ok(vec![]));
}
