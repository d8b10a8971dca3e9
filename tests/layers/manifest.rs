//! Reading a Cargo.toml well enough to check it: sections, and keys with their values as text.

/// A manifest: its sections in order, each with its `key = value` lines.
pub struct Manifest {
    sections: Vec<(String, Vec<(String, String)>)>,
}

impl Manifest {
    /// Parses what our manifests are made of. A value that goes over several lines is kept up to its first line break.
    pub fn parse(text: &str) -> Self {
        let mut sections = vec![(String::new(), Vec::new())];
        for line in text.lines().map(without_comment) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                sections.push((name.trim_matches(['[', ']']).trim().to_owned(), Vec::new()));
            } else if let Some((key, value)) = line.split_once('=')
                && let Some((_, pairs)) = sections.last_mut()
            {
                pairs.push((key.trim().trim_matches('"').to_owned(), value.trim().to_owned()));
            }
        }
        Self { sections }
    }

    /// The value of `key` in `section`.
    pub fn get(&self, section: &str, key: &str) -> Option<&str> {
        let pairs = self.sections.iter().filter(|(name, _)| name == section).flat_map(|(_, pairs)| pairs);
        pairs.into_iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// What the crate needs to be built and run, for any target: package names. Dev-dependencies are not among them.
    pub fn dependencies(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (section, pairs) in &self.sections {
            // [target.'cfg(…)'.dependencies] too; [dependencies.NAME] is a table of its own.
            let words: Vec<_> = section.rsplitn(3, '.').collect();
            let is_list = |word: &str| matches!(word, "dependencies" | "build-dependencies");
            match words[..] {
                [list, ..] if is_list(list) && !section.starts_with("workspace") => {
                    let renamed = |(key, value): &(String, String)| package(value).unwrap_or_else(|| plain(key));
                    found.extend(pairs.iter().map(renamed));
                }
                [name, list, ..] if is_list(list) && !section.starts_with("workspace") => {
                    let package = pairs.iter().find(|(key, _)| key == "package");
                    found.push(package.map_or(name.to_owned(), |(_, value)| value.trim_matches('"').to_owned()));
                }
                _ => {}
            }
        }
        found
    }
}

/// `name.workspace = true` is the dependency `name`.
fn plain(key: &str) -> String {
    key.split('.').next().unwrap_or(key).trim().to_owned()
}

/// The package behind a renamed dependency.
fn package(value: &str) -> Option<String> {
    let rest = value.split("package").nth(1)?.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?;
    Some(rest.split('"').next()?.to_owned())
}

/// A `#` in a string does not start a comment.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let end = line.char_indices().find(|&(_, c)| {
        quoted ^= c == '"';
        c == '#' && !quoted
    });
    end.map_or(line, |(at, _)| &line[..at]).trim()
}

#[test]
fn dependencies_are_found_in_every_way_of_writing_them() {
    let manifest = Manifest::parse(
        "[package]\nname = \"x\" # a comment\n[dependencies]\na = { workspace = true }\nb.workspace = true\nother = { package = \"c\" }\n\
         [dependencies.d]\nversion = \"1\"\n[target.'cfg(loom)'.dependencies]\ne = \"1\"\n[build-dependencies]\nf = \"1\"\n\
         [dev-dependencies]\nno = \"1\"\n[workspace.dependencies]\nno2 = \"1\"\n[target.'cfg(x)'.dev-dependencies]\nno3 = \"1\"\n",
    );
    assert_eq!(manifest.dependencies(), ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(manifest.get("package", "name"), Some("\"x\""));
    assert_eq!(manifest.get("package", "version"), None);
}
