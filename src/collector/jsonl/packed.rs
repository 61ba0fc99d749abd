//! Reads compressed files: gzip (RFC 1952) and zstd (RFC 8878), known by their first bytes.

use std::io::{self, BufRead as _, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest window of zstd that is decoded, 128 MiB: that of `zstd --ultra`.
const MAX_WINDOW_LOG: u32 = 27;

/// Whether a file that begins with these bytes is compressed.
pub(super) fn is_packed(head: &[u8]) -> bool {
    head.starts_with(&GZIP_MAGIC) || head.starts_with(&ZSTD_MAGIC)
}

/// Reads what `reader` has, decompressed where it is compressed.
///
/// # Errors
/// When it can't be read.
pub fn unpacked(reader: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = BufReader::new(reader);
    let head = reader.fill_buf()?;
    if head.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(MultiGzDecoder::new(reader)));
    }
    if head.starts_with(&ZSTD_MAGIC) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(reader))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn contents_are_the_same_however_they_are_compressed() {
        let text = b"a line\nanother line\n".repeat(1_000);
        let gzip = |bytes: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let (first, second) = text.split_at(777);
        for packed in [
            text.clone(),
            gzip(&text),
            zstd(&text),
            [gzip(first), gzip(second)].concat(),
            [zstd(first), zstd(second)].concat(),
        ] {
            let mut read = Vec::new();
            unpacked(io::Cursor::new(packed)).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, text);
        }
        let mut torn = unpacked(io::Cursor::new(gzip(&text)[..50].to_vec())).unwrap();
        assert!(torn.read_to_end(&mut Vec::new()).is_err());
    }
}
