//! Collector `kmsg`: the kernel's log, from `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg in the kernel's
//! source). A record is `priority,sequence,microseconds,flags[,…];message`, followed by lines of fields that
//! begin with a blank; bytes that aren't printable are written `\xNN`.
//!
//! Records of other facilities than the kernel's were written by programs: the journal has them, better.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::events::event_builder::{EventBuilder, EventHeader};
use crate::runtime::alarm::Alarm;
use crate::runtime::cursor::Cursor;
use crate::runtime::{
    Collector, CollectorConfig, CollectorError, CollectorFactory, Context, Ended, factory,
};
use tapio_core::clock;
use tapio_core::event::{ClockQuality, EventId, Reason, Severity, names};

/// The longest record the kernel hands out (`PRINTK_MESSAGE_MAX`, `CONSOLE_EXT_LOG_MAX`), and some.
const RECORD_BYTES: usize = 16 * 1024;
/// How often it looks whether what was told is settled, while something isn't.
const SETTLE_EVERY: Duration = Duration::from_millis(80);
/// Records read before the cursor gets a look.
const TURN: usize = 256;

/// The section `collectors.kmsg`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// Where the kernel's log is read.
    pub path: PathBuf,
    /// Whether to tell at the first start what the log holds already; later starts go on where the last one
    /// ended.
    pub from_the_beginning: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, path: "/dev/kmsg".into(), from_the_beginning: false }
    }
}

/// Waits for a full ring. The kernel keeps its log for a while.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Kmsg)
    }
}

/// A record of the log.
#[derive(Debug, PartialEq, Eq)]
struct Record<'a> {
    /// syslog's facility, 0 for the kernel.
    facility: u32,
    /// syslog's level, 0 (emergency) to 7 (debug).
    level: u8,
    /// Counts the records of this boot.
    sequence: u64,
    /// Since the boot, by the kernel's own clock.
    time_us: u64,
    message: &'a str,
    /// `SUBSYSTEM=`, `DEVICE=` and the like.
    fields: &'a str,
}

impl<'a> Record<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (head, rest) = text.split_once(';')?;
        let mut parts = head.split(',');
        let priority: u32 = parts.next()?.parse().ok()?;
        let sequence = parts.next()?.parse().ok()?;
        let time_us = parts.next()?.parse().ok()?;
        let (message, fields) = rest.split_once('\n').unwrap_or((rest, ""));
        let level = (priority & 7) as u8;
        Some(Self { facility: priority >> 3, level, sequence, time_us, message, fields })
    }

    /// The device the record's fields or its message name, as it is named there.
    fn block_device(&self) -> Option<&'a str> {
        let of_field = |line: &'a str| {
            // `DEVICE=b8:1` says a number; a name is in the message then.
            line.trim_start().strip_prefix("DEVICE=+block:")
        };
        self.fields.lines().find_map(of_field).or_else(|| block_device(self.message))
    }
}

/// Whether a word is the name of a disk or of a part of one.
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
            rest.split_once('n').is_some_and(|(c, n)| digits(c) && digits(&n.replace('p', "")))
        })
    };
    ["sd", "vd", "xvd", "hd"].iter().any(|p| letters_then(p))
        || ["dm-", "loop", "md", "mmcblk", "zram", "nbd", "sr"].iter().any(|p| numbered(p))
        || nvme()
}

/// The first word of a message that names a block device: behind `dev `, in parentheses, before a colon.
fn block_device(message: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    message.split(|c: char| !is_part(c)).find(|word| is_block_device(word))
}

fn severity(level: u8) -> Severity {
    match level {
        0..=1 => Severity::FATAL,
        2 => Severity(Severity::ERROR.0 + 1),
        3 => Severity::ERROR,
        4 => Severity::WARN,
        5 => Severity(Severity::INFO.0 + 1),
        6 => Severity::INFO,
        _ => Severity::DEBUG,
    }
}

/// `\xNN` becomes the byte it stands for; bytes that are no text become U+FFFD.
fn unescape(text: &str, out: &mut Vec<u8>) {
    out.clear();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'\\').then(|| {
            let digits = after.strip_prefix(b"x")?.get(..2)?;
            u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        });
        if let Some(Some(byte)) = escaped {
            out.push(byte);
            rest = &after[3..];
        } else {
            out.push(byte);
            rest = after;
        }
    }
}

struct Kmsg(Config);

/// One run.
struct Run {
    log: File,
    boot: String,
    cursor: Cursor,
    /// The sequence number that comes next; `None` before the first record.
    next: Option<u64>,
    /// Records up to this one were told by an earlier run.
    told: Option<u64>,
    draft: EventBuilder,
    bytes: Vec<u8>,
    lost: u64,
    others: u64,
}

impl Collector for Kmsg {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let mut run = Run::open(&self.0, context)?;
        let alarm = Alarm::new(&context.shutdown)?;
        let mut buffer = vec![0; RECORD_BYTES];
        let mut pause = false;
        while !context.shutdown.is_requested() {
            let read = if pause { 0 } else { run.read(&mut buffer, context)? };
            context.sink.flush();
            pause = run
                .cursor
                .try_save(context)
                .map_err(|e| CollectorError::new("keeping the position in the kernel's log", e))?;
            context.report.count("lost", run.lost);
            context.report.count("of_programs", run.others);
            if read < TURN {
                let waits = run.cursor.is_pending();
                let at_most =
                    if waits { SETTLE_EVERY } else { context.shutdown.heartbeat_interval() };
                // While it pauses, what is there to be read is no reason to look again.
                alarm.wait((!pause).then(|| run.log.as_fd()), at_most);
            }
        }
        run.cursor
            .finish(context)
            .map_err(|e| CollectorError::new("keeping the position in the kernel's log", e))?;
        Ok(Ended::Stopped)
    }
}

impl Run {
    fn open(config: &Config, context: &Context) -> Result<Self, CollectorError> {
        let path = config.path.display();
        let mut log = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&config.path)
            .map_err(|e| cant_open(&path.to_string(), &e))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let failed = |e: io::Error| CollectorError::new("the position in the kernel's log", e);
        let cursor = Cursor::open(context.site.state_dir.as_deref(), "kmsg").map_err(failed)?;
        let told = match cursor.saved().split_once(' ') {
            Some((of, sequence)) if of == boot => sequence.parse().ok(),
            _ => None,
        };
        if cursor.saved().is_empty() && !config.from_the_beginning {
            log.seek(SeekFrom::End(0)).map_err(failed)?;
        }
        Ok(Self {
            log,
            boot,
            cursor,
            next: None,
            told,
            draft: EventBuilder::default(),
            bytes: Vec::new(),
            lost: 0,
            others: 0,
        })
    }

    /// Reads up to a turn of records. Returns how many there were.
    fn read(&mut self, buffer: &mut [u8], context: &mut Context) -> Result<usize, CollectorError> {
        for n in 0..TURN {
            match self.log.read(buffer) {
                Ok(0) => return Ok(n),
                Ok(len) => self.take(&buffer[..len], context),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EAGAIN) | Some(libc::EINTR) => return Ok(n),
                    // Records were overwritten before they were read; the next one's number says how
                    // many.
                    Some(libc::EPIPE) => {}
                    // Longer than any record: it is skipped by the kernel's own reckoning.
                    Some(libc::EINVAL) => context.sink.refuse(Reason::Oversize, 1),
                    _ => return Err(CollectorError::new("reading the kernel's log", e)),
                },
            }
        }
        Ok(TURN)
    }

    fn take(&mut self, bytes: &[u8], context: &mut Context) {
        let text = String::from_utf8_lossy(bytes);
        let Some(record) = Record::parse(&text) else {
            context.sink.refuse(Reason::BadInput, 1);
            return;
        };
        let first_expected = self.next.or(self.told.map(|told| told.saturating_add(1)));
        if let Some(gap) = first_expected.and_then(|n| record.sequence.checked_sub(n)) {
            // What was overwritten may have been a program's; it is counted all the same.
            self.lost = self.lost.saturating_add(gap);
            if gap > 0 {
                context.sink.refuse(Reason::KernelRingFull, gap);
            }
        }
        self.next = Some(record.sequence.saturating_add(1));
        if self.told.is_some_and(|told| record.sequence <= told) {
            return;
        }
        if record.facility != 0 {
            self.others += 1;
        } else if self.tell(&record, context) == Err(Reason::Shutdown) {
            // The next start reads it again.
            return;
        }
        self.cursor.advance(&format!("{} {}", self.boot, record.sequence));
    }

    fn tell(&mut self, record: &Record<'_>, context: &mut Context) -> Result<(), Reason> {
        let draft = &mut self.draft;
        draft.clear();
        draft.text(names::HOST_NAME, &context.site.node);
        draft.end_entities();
        if let Some(device) = record.block_device() {
            draft.text(names::TAPIO_BLOCK_DEVICE, device);
        }
        unescape(record.message, &mut self.bytes);
        draft.message(format_args!("{}", String::from_utf8_lossy(&self.bytes)));
        let observed_ns = clock::wall_ns();
        // The log's clock runs as CLOCK_MONOTONIC does (printk's local_clock), from the boot on.
        let time_ns =
            clock::monotonic_to_wall_ns().saturating_add(record.time_us.saturating_mul(1_000));
        let natural = format!("{} {}", self.boot, record.sequence);
        let meta = EventHeader {
            id: EventId::from_natural("kmsg", &natural),
            time_ns: time_ns.min(observed_ns),
            observed_ns,
            kind: names::KERNEL_LOG,
            source: names::KMSG,
            clock: ClockQuality::Micros,
            severity: severity(record.level),
        };
        draft.offer(&meta, &mut context.sink)
    }
}

/// Takes in what reads of the log would give, one after the other with a zero byte between them: what the fuzz target
/// looks at.
///
/// # Errors
/// When the collector can't start at all.
#[doc(hidden)]
pub fn look(reads: &[u8], context: &mut Context) -> Result<(), CollectorError> {
    let nothing = Config { path: "/dev/null".into(), from_the_beginning: true, enabled: true };
    let mut run = Run::open(&nothing, context)?;
    reads.split(|byte| *byte == 0).for_each(|read| run.take(read, context));
    Ok(())
}

fn cant_open(path: &str, error: &io::Error) -> CollectorError {
    let text = format!("{path} can't be read: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => CollectorError::Unavailable(format!(
            "{text}; to do: give CAP_SYSLOG, or set kernel.dmesg_restrict=0"
        )),
        io::ErrorKind::NotFound => CollectorError::Unavailable(format!(
            "{text}; to do: mount the node's /dev/kmsg into the container"
        )),
        _ => CollectorError::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_is_read() {
        let text = "3,1042,84512334,-;blk_update_request: I/O error, dev sda, sector 1234\n SUBSYSTEM=block\n DEVICE=+block:sda\n";
        let record = Record::parse(text).unwrap();
        assert_eq!((record.facility, record.level, record.sequence), (0, 3, 1042));
        assert_eq!(record.message, "blk_update_request: I/O error, dev sda, sector 1234");
        assert_eq!(record.block_device(), Some("sda"));
        let more = Record::parse("30,7,9,-,caller=T1;systemd[1]: hello").unwrap();
        assert_eq!((more.facility, more.level), (3, 6));
        assert_eq!(Record::parse("no record"), None);
        assert_eq!(Record::parse("x,1,2,-;m"), None);
    }

    /// Found by the fuzz target `kmsg`: times and numbers that no clock and no counter reaches.
    #[test]
    fn numbers_without_bounds_are_taken_as_they_are() {
        let mut context = Context::for_test(Some(0));
        let far = u64::MAX;
        let reads = format!("3,1,{far},-;a\03,{far},1,-;b\03,5,1,-;c");
        look(reads.as_bytes(), &mut context).unwrap();
        assert_eq!(context.held(), Some(3), "all three are on their way, and CONS-1 holds");
    }

    #[test]
    fn devices_are_found_where_the_kernel_names_them() {
        for (message, device) in [
            ("I/O error, dev sdb1, sector 42 op 0x0:(READ)", Some("sdb1")),
            ("EXT4-fs error (device dm-3): ext4_find_entry:1455: inode #2", Some("dm-3")),
            ("XFS (nvme0n1p2): metadata I/O error", Some("nvme0n1p2")),
            ("Buffer I/O error on dev vda, logical block 0", Some("vda")),
            ("EXT4-fs (loop0): mounted filesystem", Some("loop0")),
            ("INFO: task kworker/u8:1 blocked for more than 120 seconds", None),
            ("sd 0:0:0:0: Attached scsi disk", None),
            ("md: md0 stopped.", Some("md0")),
            ("usb 1-1: new device", None),
        ] {
            assert_eq!(block_device(message), device, "{message}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        let mut out = Vec::new();
        unescape(r"a\x09b\x5cx\xzz\x", &mut out);
        assert_eq!(out, b"a\tb\\x\\xzz\\x");
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,200}") {
            if let Some(record) = Record::parse(&text) {
                prop_assert!(text.contains(record.message));
                let _ = record.block_device();
            }
            let mut out = Vec::new();
            unescape(&text, &mut out);
            prop_assert!(out.len() <= text.len());
        }
    }
}
