//! Decompresses the payloads of data objects, up to the maximum length of a field.

use std::io::Read;

use super::format::ReadError;

const XZ: u8 = 1;
const LZ4: u8 = 1 << 1;
const ZSTD: u8 = 1 << 2;

/// Memory limit of a decoder, in bytes: journald compresses with far smaller windows.
const MAX_MEMORY_BYTES: u32 = 16 << 20;
/// Maximum decompressed size of an LZ4 block, which can't be decompressed in part.
const MAX_LZ4_BYTES: u64 = 1 << 20;

/// Appends the decompressed `bytes` to `into`, at most `limit` bytes. `whole`: whether `bytes` are
/// the whole payload; of a part, as much as possible is decompressed.
pub(super) fn unpack(
    flags: u8,
    bytes: &[u8],
    whole: bool,
    limit: usize,
    into: &mut Vec<u8>,
) -> Result<(), ReadError> {
    match flags & (XZ | LZ4 | ZSTD) {
        0 => into.extend_from_slice(&bytes[..bytes.len().min(limit)]),
        XZ => {
            let reader = lzma_rust2::XzReader::new_mem_limit(bytes, false, MAX_MEMORY_BYTES >> 10);
            decompress(reader, whole, limit, into).ok_or(ReadError::Compression("xz"))?;
        }
        LZ4 => lz4(bytes, limit, into).ok_or(ReadError::Compression("lz4"))?,
        ZSTD => {
            let max_window = u64::from(MAX_MEMORY_BYTES);
            let reader =
                ruzstd::decoding::StreamingDecoder::new_with_max_window_size(bytes, max_window);
            let reader = reader.map_err(|_| ReadError::Compression("zstd"))?;
            decompress(reader, whole, limit, into).ok_or(ReadError::Compression("zstd"))?;
        }
        _ => return Err(ReadError::Compression("data with two compression flags")),
    }
    Ok(())
}

/// Reads up to `limit` bytes from a decoder.
fn decompress(reader: impl Read, whole: bool, limit: usize, into: &mut Vec<u8>) -> Option<()> {
    let before = into.len();
    let read = reader.take(limit as u64).read_to_end(into);
    // A decoder fails at the end of a partial payload, after it has returned the data before.
    (read.is_ok() || (!whole && into.len() > before)).then_some(())
}

/// The decompressed length, followed by LZ4's block format.
fn lz4(bytes: &[u8], limit: usize, into: &mut Vec<u8>) -> Option<()> {
    let (len, block) = bytes.split_first_chunk::<8>()?;
    let len = u64::from_le_bytes(*len);
    if len > MAX_LZ4_BYTES {
        return None;
    }
    let unpacked = lz4_flex::block::decompress(block, len as usize).ok()?;
    into.extend_from_slice(&unpacked[..unpacked.len().min(limit)]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `MESSAGE=` and a thousand times `tapio `, compressed by the programs xz and zstd.
    const XZ_BYTES: &[u8] = include_bytes!("samples/message.xz");
    const ZSTD_BYTES: &[u8] = include_bytes!("samples/message.zst");

    fn text() -> Vec<u8> {
        let mut text = b"MESSAGE=".to_vec();
        text.extend(b"tapio ".repeat(1_000));
        text
    }

    fn lz4_bytes() -> Vec<u8> {
        // Literals only, as for incompressible data: enough to test the format.
        let text = text();
        let mut block = vec![0xf0];
        let mut left = text.len() - 15;
        while left >= 255 {
            block.push(255);
            left -= 255;
        }
        block.push(left as u8);
        block.extend(&text);
        [&(text.len() as u64).to_le_bytes()[..], &block].concat()
    }

    #[test]
    fn each_compression_is_decompressed_up_to_limit() {
        let text = text();
        let lz4 = lz4_bytes();
        for (flags, bytes) in [(0, &text[..]), (XZ, XZ_BYTES), (LZ4, &lz4), (ZSTD, ZSTD_BYTES)] {
            for limit in [10, text.len(), 1 << 20] {
                let mut out = Vec::new();
                unpack(flags, bytes, true, limit, &mut out).unwrap();
                assert_eq!(out, &text[..limit.min(text.len())], "{flags} {limit}");
            }
        }
        assert!(unpack(3, &text, true, 10, &mut Vec::new()).is_err());
    }

    #[test]
    fn decompression_bomb_is_refused() {
        let mut huge = (1u64 << 40).to_le_bytes().to_vec();
        huge.extend([0x1f, 1, 0, 255, 255]);
        assert!(unpack(LZ4, &huge, true, 100, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn output_of_any_bytes_is_bounded(
            flags in 0..8u8, bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<bool>()
        ) {
            let mut out = Vec::new();
            let _ = unpack(flags, &bytes, cut, 64, &mut out);
            prop_assert!(out.len() <= 64);
        }

        #[test]
        fn output_of_damaged_payload_is_bounded(at in 0..100usize, to in any::<u8>(), flags in 1..8u8) {
            for sample in [XZ_BYTES, ZSTD_BYTES, &lz4_bytes()] {
                let mut bytes = sample.to_vec();
                let at = at % bytes.len();
                bytes[at] = to;
                let mut out = Vec::new();
                let _ = unpack(flags, &bytes, true, 4_096, &mut out);
                prop_assert!(out.len() <= 4_096);
            }
        }
    }
}
