//! Quoting for the POSIX shell.

/// Quotes `word` so that a shell reads it back as exactly that one word.
pub fn word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes each of `words` and joins them with spaces.
pub fn line<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(|w| word(w.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
