//! The guest kernel's image: the one in this program, or another build of it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use tempfile::NamedTempFile;
use vmm::Error;
use vmm::test_record::{MEASUREMENTS, RECORD_SIZE, SECTION, TestRecord};

#[cfg(test)]
mod tests;

/// The suite that belongs to this program.
const EMBEDDED: &[u8] = include_bytes!(env!("TOPHALF_GUEST"));
/// An image of ours is far smaller.
const MAX_BYTES: u64 = 64 << 20;

/// An image, its tests and its symbols.
pub struct Image {
    file: File,
    tests: Vec<TestRecord<u64>>,
    measurements: Vec<TestRecord<u64>>,
    /// Address and name of each function, by address.
    functions: Vec<(u64, String)>,
}

/// Where children find the image.
enum File {
    Given(PathBuf),
    Temporary(NamedTempFile),
}

impl Image {
    /// Opens the image at `path`, or the one in this program.
    ///
    /// # Errors
    ///
    /// A usage error if it is not one of ours; a host error if the embedded one can't be put into a file.
    pub fn open(path: Option<&Path>) -> Result<Self, Error> {
        match path {
            Some(path) => {
                let bad =
                    |why: String| Error::Usage(format!("{}: {why}; give a build of the guest kernel", path.display()));
                let size = fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
                if size > MAX_BYTES {
                    return Err(bad("too large for a guest kernel".into()));
                }
                let bytes = fs::read(path).map_err(|e| bad(e.to_string()))?;
                let Parts { tests, measurements, functions } = parse(&bytes).map_err(bad)?;
                Ok(Self { file: File::Given(path.to_owned()), tests, measurements, functions })
            }
            None => {
                let Parts { tests, measurements, functions } =
                    parse(EMBEDDED).map_err(|why| Error::Usage(format!("the guest kernel in this program: {why}")))?;
                let file = NamedTempFile::with_prefix("tophalf-guest-")
                    .and_then(|mut file| file.write_all(EMBEDDED).map(|()| file))
                    .map_err(|e| Error::host("the guest kernel can't be put into a temporary file", e))?;
                Ok(Self { file: File::Temporary(file), tests, measurements, functions })
            }
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        match &self.file {
            File::Given(path) => path,
            File::Temporary(file) => file.path(),
        }
    }

    /// Its tests, in the order of their numbers.
    pub fn tests(&self) -> &[TestRecord<u64>] {
        &self.tests
    }

    /// Its measurements, in the order of their numbers; none in an image that has no section for them.
    pub fn measurements(&self) -> &[TestRecord<u64>] {
        &self.measurements
    }

    /// The function that `address` is in, as "name+0x12"; `None` outside of all.
    pub fn symbol(&self, address: u64) -> Option<String> {
        let at = self.functions.partition_point(|(start, _)| *start <= address).checked_sub(1)?;
        let (start, name) = &self.functions[at];
        let inside = at + 1 < self.functions.len() || address - start < 4096;
        inside.then(|| format!("{name}+{:#x}", address - start))
    }
}

struct Parts {
    tests: Vec<TestRecord<u64>>,
    measurements: Vec<TestRecord<u64>>,
    functions: Vec<(u64, String)>,
}

fn parse(bytes: &[u8]) -> Result<Parts, String> {
    let elf = object::File::parse(bytes).map_err(|e| format!("not an ELF file: {e}"))?;
    let records = |name: &str| -> Result<Vec<TestRecord<u64>>, String> {
        let Some(section) = elf.section_by_name(name) else { return Ok(Vec::new()) };
        let data = section.data().map_err(|e| format!("its tests can't be read: {e}"))?;
        let (records, rest) = data.as_chunks::<RECORD_SIZE>();
        let records: Option<Vec<_>> = records.iter().map(TestRecord::from_bytes).collect();
        let records = records.filter(|records| rest.is_empty() && !records.is_empty());
        records.ok_or_else(|| "its tests are of another version".into())
    };
    let (tests, measurements) = (records(SECTION)?, records(MEASUREMENTS)?);
    if tests.is_empty() {
        return Err("no tests in it".into());
    }
    let mut functions: Vec<(u64, String)> = elf
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.address() != 0)
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
        .map(|(address, name)| (address, format!("{:#}", rustc_demangle::demangle(name))))
        .collect();
    functions.sort();
    functions.dedup_by_key(|(address, _)| *address);
    Ok(Parts { tests, measurements, functions })
}
