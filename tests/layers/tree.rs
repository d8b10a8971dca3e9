//! The repository's files, read once.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::code::{code_only, without_tests};
use crate::manifest::Manifest;

/// A Rust file.
pub struct SourceFile {
    /// From the repository's root, with slashes.
    pub path: String,
    /// As it is.
    pub source: String,
    /// Without comments and literals.
    pub code: String,
    /// Also without what is compiled for tests only; empty for a test module.
    pub product_code: String,
    /// It is compiled for tests only.
    pub is_test: bool,
}

/// What there is.
pub struct Tree {
    /// Names at the top.
    pub top_level: Vec<String>,
    /// Package name, path and contents of each Cargo.toml.
    pub manifests: Vec<(String, String, Manifest)>,
    /// Rust files.
    pub sources: Vec<SourceFile>,
    /// Other text files: docs, scripts, configuration.
    pub texts: Vec<(String, String)>,
}

impl Tree {
    /// Reads the repository that this test was built from.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut top_level: Vec<_> = names(root);
        top_level.sort();
        let mut tree = Self { top_level, manifests: Vec::new(), sources: Vec::new(), texts: Vec::new() };
        let mut files = Vec::new();
        collect(root, root, &mut files);
        files.sort();
        for path in files {
            let Ok(text) = fs::read_to_string(root.join(&path)) else { continue };
            tree.add(path, text);
        }
        mark_tests(&mut tree.sources);
        tree
    }

    fn add(&mut self, path: String, text: String) {
        if path.ends_with(".rs") {
            let code = code_only(&text);
            let (product_code, _) = without_tests(&code);
            self.sources.push(SourceFile { path, source: text, code, product_code, is_test: false });
            return;
        }
        if path.ends_with("Cargo.toml") && path != "guest/Cargo.toml" {
            let manifest = Manifest::parse(&text);
            let name = manifest.get("package", "name").unwrap_or_default().trim_matches('"').to_owned();
            self.manifests.push((name, path.clone(), manifest));
        }
        self.texts.push((path, text));
    }

    /// The text of a file that must be there.
    pub fn text(&self, path: &str) -> String {
        let found = self.texts.iter().find(|(name, _)| name == path);
        found.unwrap_or_else(|| panic!("{path} is missing")).1.clone()
    }

    /// Rust files below `folder`, which ends with a slash.
    pub fn in_folder(&self, folder: &str) -> impl Iterator<Item = &SourceFile> {
        assert!(self.sources.iter().any(|file| file.path.starts_with(folder)), "{folder} has no source");
        self.sources.iter().filter(move |file| file.path.starts_with(folder))
    }
}

/// A module declared under `#[cfg(test)]`, and everything below it, is for tests only.
fn mark_tests(sources: &mut [SourceFile]) {
    let mut tests = HashSet::new();
    for file in sources.iter() {
        let path = Path::new(&file.path);
        let (folder, stem) = (path.parent().unwrap_or(Path::new("")), path.file_stem().unwrap_or_default());
        let is_folder_file = ["mod", "lib", "main"].iter().any(|name| stem == *name);
        let base = if is_folder_file { folder.to_path_buf() } else { folder.join(stem) };
        tests.extend(without_tests(&file.code).1.into_iter().map(|name| base.join(name)));
    }
    for file in sources {
        let path = PathBuf::from(&file.path).with_extension("");
        file.is_test = path.ancestors().any(|part| tests.contains(part));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for name in names(folder) {
        let path = folder.join(&name);
        // In a second working tree `.git` is a file, and names a path of the machine it is on.
        if ["target", ".git"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Some(path) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            files.push(path.to_owned());
        }
    }
}

#[test]
fn test_modules_are_told_from_the_product() {
    let file = |path: &str, code: &str| SourceFile {
        path: path.to_owned(),
        source: code.to_owned(),
        code: code.to_owned(),
        product_code: without_tests(code).0,
        is_test: false,
    };
    let mut sources = [
        file("src/a/lib.rs", "mod b;\n#[cfg(test)]\nmod testing;"),
        file("src/a/b.rs", "#[cfg(test)]\nmod tests;"),
        file("src/a/b/tests.rs", ""),
        file("src/a/testing.rs", "mod deep;"),
        file("src/a/testing/deep.rs", ""),
        file("src/a/tests.rs", ""),
    ];
    mark_tests(&mut sources);
    assert_eq!(sources.map(|file| file.is_test), [false, false, true, true, true, false]);
}
