//! Which kernel modules a module needs, from `modules.dep` and `modules.builtin`.

use std::collections::{HashMap, HashSet};

/// A kernel's modules: name to file and the files it depends on.
pub struct Dependencies {
    modules: HashMap<String, (String, Vec<String>)>,
    builtin: HashSet<String>,
}

impl Dependencies {
    /// Reads the two files' text.
    pub fn parse(dep: &str, builtin: &str) -> Self {
        let module = |line: &str| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((name(file), (file.to_owned(), needs)))
        };
        Self { modules: dep.lines().filter_map(module).collect(), builtin: builtin.lines().map(name).collect() }
    }

    /// The files to load for `wanted`, dependencies first, each once.
    ///
    /// # Errors
    /// The name of a module that is neither there nor built in.
    pub fn resolve(&self, wanted: &[&str]) -> Result<Vec<String>, String> {
        let mut files = Vec::new();
        let mut seen = HashSet::new();
        for module in wanted {
            self.add(&name(module), &mut seen, &mut files)?;
        }
        Ok(files)
    }

    fn add(&self, module: &str, seen: &mut HashSet<String>, files: &mut Vec<String>) -> Result<(), String> {
        if self.builtin.contains(module) || !seen.insert(module.to_owned()) {
            return Ok(());
        }
        let (file, needs) = self.modules.get(module).ok_or_else(|| module.to_owned())?;
        for need in needs {
            self.add(&name(need), seen, files)?;
        }
        files.push(file.clone());
        Ok(())
    }
}

/// A module's name from its file: no directory, no suffix, and `-` written `_` as the kernel does.
fn name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
mod tests;
