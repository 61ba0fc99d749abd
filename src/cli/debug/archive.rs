//! A tar.gz file: POSIX ustar headers (pax(1), "ustar Interchange Format"), compressed with gzip.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK_BYTES: usize = 512;

/// A file that is being written.
pub(super) struct Archive<W: Write> {
    out: GzEncoder<W>,
    /// Seconds since the Unix epoch, of all entries.
    time_s: u64,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W, time_s: u64) -> Self {
        Self { out: GzEncoder::new(out, Compression::default()), time_s }
    }

    /// Adds a file, readable by its user only.
    ///
    /// # Errors
    /// When the name is longer than 100 bytes, or the archive can't be written.
    pub(super) fn add(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.out.write_all(&header(name, contents.len() as u64, self.time_s)?)?;
        self.out.write_all(contents)?;
        let rest = contents.len() % BLOCK_BYTES;
        if rest > 0 {
            self.out.write_all(&[0; BLOCK_BYTES][rest..])?;
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.out.finish()
    }
}

fn header(name: &str, size: u64, time_s: u64) -> io::Result<[u8; BLOCK_BYTES]> {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    if name.len() > 100 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name of more than 100 bytes"));
    }
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    // Sizes beyond 11 octal digits don't occur: pages are bounded.
    put(124, format!("{:011o}\0", size.min(0o77_777_777_777)).as_bytes());
    put(136, format!("{:011o}\0", time_s.min(0o77_777_777_777)).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}
