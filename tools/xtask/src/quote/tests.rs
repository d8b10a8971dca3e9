use super::*;

#[test]
fn plain_words_stay_readable() {
    assert_eq!(line(&["tophalf", "run", "-m", "512M", "/boot/vmlinuz-6.1"]), "tophalf run -m 512M /boot/vmlinuz-6.1");
}

#[test]
fn a_shell_reads_every_word_back_unchanged() {
    let words = ["", "a b", "it's", "$HOME", "`x`", "*", "~", "\\", "\"", "new\nline", "ü", "a;b", "!x", "#x"];
    let script = format!("printf '%s\\0' {}", line(&words));
    let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
    let read: Vec<_> = output.stdout.split(|&b| b == 0).map(|w| String::from_utf8(w.to_vec()).unwrap()).collect();
    assert_eq!(read[..words.len()], words);
}
