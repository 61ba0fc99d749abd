//! A split block Bloom filter: whether a set may contain a hash, with twelve bits for each of its
//! hashes. About one of 200 absent hashes is reported as contained.
//!
//! Blocks of eight 32-bit words, salts and the choice of bits are those of Parquet's specification
//! (BloomFilter.md in apache/parquet-format): the bytes are on disk, so they can't depend on what a
//! library does inside.

use std::ops::Range;

/// Odd numbers that choose a bit in each word of a block.
const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];
const BLOCK_BYTES: usize = 32;
const BITS_PER_HASH: usize = 12;

/// The filter of these hashes. Empty for none.
pub(super) fn build(hashes: impl ExactSizeIterator<Item = u64>) -> Vec<u8> {
    let blocks = (hashes.len() * BITS_PER_HASH).div_ceil(BLOCK_BYTES * 8);
    let mut filter = vec![0; blocks * BLOCK_BYTES];
    for hash in hashes {
        let block = block_of(blocks, hash) * BLOCK_BYTES;
        for (byte, mask) in bits(hash) {
            filter[block + byte] |= mask;
        }
    }
    filter
}

/// The bytes of a filter that say whether it contains a hash, for [`may_contain`]. `None` for a
/// filter of nothing.
pub(super) fn block(filter_bytes: u64, hash: u64) -> Option<Range<u64>> {
    let blocks = filter_bytes / BLOCK_BYTES as u64;
    let start = block_of(usize::try_from(blocks).ok()?, hash) as u64 * BLOCK_BYTES as u64;
    (blocks > 0).then_some(start..start + BLOCK_BYTES as u64)
}

/// Whether the set may contain the hash; `false` is certain. A block of another length contains
/// everything.
pub(super) fn may_contain(block: &[u8], hash: u64) -> bool {
    block.len() != BLOCK_BYTES || bits(hash).all(|(byte, mask)| block[byte] & mask != 0)
}

fn block_of(blocks: usize, hash: u64) -> usize {
    ((u128::from(hash >> 32) * blocks as u128) >> 32) as usize
}

/// Byte of the block and bit in it, for each word. Words are little-endian.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    SALTS.iter().enumerate().map(move |(word, salt)| {
        let bit = (hash as u32).wrapping_mul(*salt) >> 27;
        (word * 4 + (bit / 8) as usize, 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapio_core::event::stable_hash;

    fn hash(n: u64) -> u64 {
        let hash = stable_hash(&[&n.to_le_bytes()]);
        hash[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn is_found(filter: &[u8], hash: u64) -> bool {
        block(filter.len() as u64, hash).is_some_and(|block| {
            may_contain(&filter[block.start as usize..block.end as usize], hash)
        })
    }

    #[test]
    fn every_member_is_contained_and_few_others_are() {
        for n in [0, 1, 10, 5_000] {
            let filter = build((0..n).map(hash).collect::<Vec<_>>().into_iter());
            assert!((0..n).all(|member| is_found(&filter, hash(member))), "{n}");
            let wrong = (n..n + 20_000).filter(|other| is_found(&filter, hash(*other))).count();
            assert!(wrong < 200, "{wrong} of 20,000 with {n} members");
        }
    }

    #[test]
    fn bytes_that_are_no_block_exclude_nothing() {
        assert!(may_contain(&[0; 31], 5));
    }
}
