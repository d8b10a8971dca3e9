//! The ELF kernel inside a bzImage.
//!
//! Linux's Documentation/arch/x86/boot.rst, section "Details of Header Fields": `payload_offset` and `payload_length` say
//! where the compressed kernel is, counted from the end of the real-mode part, and that its last four bytes are the
//! uncompressed size. LZ4 (in the legacy frame, one block after the other) is what Debian's kernels use.

use anyhow::{Context, Result, bail, ensure};

const SETUP_SECTS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;
const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// What a block of the legacy frame holds at most, uncompressed.
const BLOCK: usize = 8 << 20;

/// Unpacks it.
///
/// # Errors
/// When the file is no bzImage, or is compressed in another way.
pub fn unpack(bzimage: &[u8]) -> Result<Vec<u8>> {
    let setup = *bzimage.get(SETUP_SECTS).context("the kernel is too short for a bzImage")?;
    let start = (usize::from(setup) + 1) * SECTOR + number(bzimage, PAYLOAD_OFFSET)?;
    let end = start + number(bzimage, PAYLOAD_LENGTH)?;
    let payload = bzimage.get(start..end).context("the kernel's payload is not in its file")?;
    let (mut rest, size) = payload.split_last_chunk::<4>().context("the kernel's payload is empty")?;
    let size = u32::from_le_bytes(*size) as usize;
    rest = rest.strip_prefix(&LZ4_LEGACY).with_context(|| {
        let magic = &payload[..payload.len().min(4)];
        format!("the kernel is not compressed with LZ4 (its payload begins with {magic:02x?})")
    })?;
    let mut kernel = Vec::with_capacity(size);
    while !rest.is_empty() {
        let length = number(rest, 0)?;
        let block = rest.get(4..4 + length).context("a block of the kernel's payload is cut off")?;
        kernel.extend(lz4_flex::block::decompress(block, BLOCK).context("a block of the kernel's payload is garbled")?);
        rest = &rest[4 + length..];
    }
    ensure!(kernel.len() == size, "the kernel unpacks to {} bytes instead of {size}", kernel.len());
    if !kernel.starts_with(b"\x7fELF") {
        bail!("what is in the kernel is no ELF file");
    }
    Ok(kernel)
}

fn number(bytes: &[u8], at: usize) -> Result<usize> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk()).context("the kernel is cut off")?;
    Ok(u32::from_le_bytes(*bytes) as usize)
}

#[cfg(test)]
mod tests;
