//! `memcpy` and `memmove` of the static program. musl's for x86-64 are one `rep movsq` for each
//! length, which takes longer to begin than most copies here to finish: 9 % of the CPU time at
//! 165,000 events a second, of which this leaves a third. musl has faster ones for aarch64.

use std::arch::global_asm;

global_asm!(include_str!("copy.s"));

// Both names, as musl's `memmove` brings its `memcpy` along. The linker takes these: it looks into
// musl's archive only for what is missing.
#[cfg(target_env = "musl")]
global_asm!(
    ".globl memcpy, memmove",
    ".type memcpy, @function",
    ".type memmove, @function",
    ".set memcpy, tapio_memmove",
    ".set memmove, tapio_memmove",
);

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use proptest::prelude::*;

    // SAFETY: the function in copy.s has this signature and follows the C calling convention.
    unsafe extern "C" {
        fn tapio_memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
    }

    /// Copies within the buffer, whose end is the end of its allocation.
    fn copy_within(buffer: &mut [u8], from: usize, to: usize, bytes: usize) {
        assert!(from + bytes <= buffer.len() && to + bytes <= buffer.len());
        let start = buffer.as_mut_ptr();
        // SAFETY: both ranges are within the buffer, which nothing else uses.
        let returned =
            unsafe { tapio_memmove(start.add(to).cast(), start.add(from).cast(), bytes) };
        assert_eq!(returned.addr(), start.addr() + to);
    }

    fn numbered(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (i % 251) as u8 ^ (i / 251) as u8).collect()
    }

    fn assert_copied(buffer_bytes: usize, from: usize, to: usize, bytes: usize) {
        let mut copied = numbered(buffer_bytes);
        let mut expected = copied.clone();
        copy_within(&mut copied, from, to, bytes);
        expected.copy_within(from..from + bytes, to);
        assert!(copied == expected, "{bytes} bytes from {from} to {to}");
    }

    #[test]
    fn each_length_is_copied_at_each_alignment_and_overlap() {
        const LONGEST: usize = 330;
        for bytes in 0..=LONGEST {
            // Around each distance at which the way of copying changes.
            for distance in (0..=33).chain([47, 63, 64, 65, 127, 128, 129, LONGEST]) {
                for offset in [0, 1, 8, 15] {
                    assert_copied(offset + distance + bytes, offset, offset + distance, bytes);
                    assert_copied(offset + distance + bytes, offset + distance, offset, bytes);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_copy_equals_the_standard_library_s(
            bytes in 0_usize..20_000, from in 0_usize..5_000, to in 0_usize..5_000,
        ) {
            assert_copied(from.max(to) + bytes, from, to, bytes);
        }
    }
}
