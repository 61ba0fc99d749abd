//! Names of block devices in lines of the kernel.

/// Whether a word is the name of a disk or partition.
fn is_block_device(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let letters_then = |prefix: &str| {
        word.strip_prefix(prefix).is_some_and(|rest| {
            let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
            !letters.is_empty()
                && letters.len() <= 2
                && letters.bytes().all(|b| b.is_ascii_lowercase())
        })
    };
    let numbered =
        |prefix: &str| word.strip_prefix(prefix).is_some_and(|rest| digits(&rest.replace('p', "")));
    let nvme = || {
        word.strip_prefix("nvme").is_some_and(|rest| {
            rest.split_once('n').is_some_and(|(c, n)| {
                let controller = c.split_once('c').map_or(c, |(subsystem, _)| subsystem);
                digits(controller) && digits(&n.replace('p', ""))
            })
        })
    };
    ["sd", "vd", "xvd", "hd"].iter().any(|p| letters_then(p))
        || ["dm-", "loop", "md", "mmcblk", "zram", "nbd", "sr", "rbd", "drbd", "dasd"]
            .iter()
            .any(|p| numbered(p))
        || nvme()
}

/// The first word of a kernel's message that names a block device: after `dev `, in parentheses,
/// before a colon.
#[must_use]
pub fn block_device(message: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    message
        .split(|c: char| !is_part(c))
        // jbd2 names a journal `sda1-8`: the device and the journal's inode.
        .map(|word| match word.rsplit_once('-') {
            Some((device, inode)) if device != "dm" && inode.parse::<u32>().is_ok() => device,
            _ => word,
        })
        .find(|word| is_block_device(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_device_is_found_in_kernel_messages() {
        for (message, device) in [
            ("I/O error, dev sdb1, sector 42 op 0x0:(READ)", Some("sdb1")),
            ("EXT4-fs error (device dm-3): ext4_find_entry:1455: inode #2", Some("dm-3")),
            ("XFS (nvme0n1p2): metadata I/O error", Some("nvme0n1p2")),
            ("Buffer I/O error on dev vda, logical block 0", Some("vda")),
            ("EXT4-fs (loop0): mounted filesystem", Some("loop0")),
            ("INFO: task kworker/u8:1 blocked for more than 120 seconds", None),
            ("sd 0:0:0:0: Attached scsi disk", None),
            ("sd 2:0:0:0: [sdb] tag#12 Sense Key : Medium Error [current]", Some("sdb")),
            ("md: md0 stopped.", Some("md0")),
            ("md/raid1:md127: Disk failure on sdc1, disabling device.", Some("md127")),
            ("Aborting journal on device nvme0n1p1-8.", Some("nvme0n1p1")),
            ("Aborting journal on device dm-3-8.", Some("dm-3")),
            ("nvme0c1n1: I/O Cmd(0x2) @ LBA 5, 8 blocks, I/O Error", Some("nvme0c1n1")),
            ("nvme nvme0: I/O 900 QID 2 timeout, aborting", None),
            ("usb 1-1: new device", None),
        ] {
            assert_eq!(block_device(message), device, "{message}");
        }
    }
}
