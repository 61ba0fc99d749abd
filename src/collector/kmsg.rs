//! Collector `kmsg`: the kernel's log, from `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg in the
//! kernel's source). A record is `priority,sequence,microseconds,flags[,…];message`, followed by
//! lines of fields that begin with a blank; bytes that aren't printable are escaped as `\xNN`.
//!
//! Records of facilities other than the kernel's come from programs and are skipped: the journal
//! has them with more detail.

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
use tapio_core::sandbox::FileRights;

/// Buffer size; above the longest record (`PRINTK_MESSAGE_MAX`, `CONSOLE_EXT_LOG_MAX`).
const RECORD_BYTES: usize = 16 * 1024;
/// Interval at which the cursor is checked while a position waits to be saved.
const CURSOR_INTERVAL: Duration = Duration::from_millis(80);
/// Records read between two checks of the cursor.
const BATCH_RECORDS: usize = 256;

/// The section `collectors.kmsg`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to run it.
    pub enabled: bool,
    /// The file of the kernel's log.
    pub path: PathBuf,
    /// Whether the first start reads the existing records; later starts resume from the cursor.
    pub from_the_beginning: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, path: "/dev/kmsg".into(), from_the_beginning: false }
    }
}

// A full ring: the collector waits, and the kernel's log keeps the records.
impl CollectorConfig for Config {
    fn enabled(&self) -> bool {
        self.enabled
    }

    fn reads_again(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<(PathBuf, FileRights)> {
        vec![(self.path.clone(), FileRights::Read)]
    }

    fn factory(&self) -> CollectorFactory {
        factory(self.clone(), Kmsg)
    }
}

/// One record of the log.
#[derive(Debug, PartialEq, Eq)]
struct Record<'a> {
    /// syslog facility, 0 for the kernel.
    facility: u32,
    /// syslog level, 0 (emergency) to 7 (debug).
    level: u8,
    /// Number of the record within this boot.
    sequence: u64,
    /// Time since boot, by the kernel's clock.
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

    /// The block device that the record's fields name. The sink reads the message's.
    fn block_device(&self) -> Option<&'a str> {
        let from_field = |line: &'a str| {
            // `DEVICE=b8:1` has a number only; the message then has the name.
            line.trim_start().strip_prefix("DEVICE=+block:")
        };
        self.fields.lines().find_map(from_field)
    }
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

/// Replaces each `\xNN` by its byte.
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

/// State of one run.
struct Run {
    log: File,
    boot: String,
    cursor: Cursor,
    /// Expected sequence number; `None` before the first record.
    next: Option<u64>,
    /// Sequence number of the last record that an earlier run emitted.
    emitted: Option<u64>,
    event: EventBuilder,
    bytes: Vec<u8>,
    /// Records overwritten before they were read.
    lost: u64,
    /// Records of programs.
    skipped: u64,
}

impl Collector for Kmsg {
    fn run(&mut self, context: &mut Context) -> Result<Ended, CollectorError> {
        let mut run = Run::open(&self.0, context)?;
        context.opened();
        let alarm = Alarm::new(&context.shutdown)?;
        let mut buffer = vec![0; RECORD_BYTES];
        let mut is_paused = false;
        while !context.shutdown.is_requested() {
            let read = if is_paused { 0 } else { run.read(&mut buffer, context)? };
            context.sink.flush();
            is_paused = run.cursor.try_save(context).map_err(cursor_error)?;
            context.report.count("records_lost", run.lost);
            context.report.count("user_records", run.skipped);
            if read < BATCH_RECORDS {
                let timeout = match run.cursor.is_pending() {
                    true => CURSOR_INTERVAL,
                    false => context.shutdown.heartbeat_interval(),
                };
                // New records don't end a pause.
                alarm.wait((!is_paused).then(|| run.log.as_fd()), timeout);
            }
        }
        run.cursor.finish(context).map_err(cursor_error)?;
        Ok(Ended::Stopped)
    }
}

/// Parses a saved position: the boot and the number of the last record.
fn parse_position(text: &str) -> Option<(&str, u64)> {
    let (boot, sequence) = text.split_once(' ')?;
    let is_id = boot.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    is_id.then_some((boot, sequence.parse().ok()?))
}

fn check_position(text: &str) -> Result<(), String> {
    parse_position(text).map(drop).ok_or_else(|| "not a boot id and a record's number".to_owned())
}

fn cursor_error(cause: io::Error) -> CollectorError {
    CollectorError::new("saving the cursor of the kernel's log", cause)
}

impl Run {
    fn open(config: &Config, context: &Context) -> Result<Self, CollectorError> {
        let path = config.path.display();
        let mut log = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&config.path)
            .map_err(|e| open_error(&path.to_string(), &e))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let failed =
            |e: io::Error| CollectorError::new("opening the cursor of the kernel's log", e);
        let cursor = Cursor::open(context, "kmsg", check_position).map_err(failed)?;
        let emitted = match parse_position(cursor.saved()) {
            Some((saved_boot, sequence)) if saved_boot == boot => Some(sequence),
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
            emitted,
            event: EventBuilder::default(),
            bytes: Vec::new(),
            lost: 0,
            skipped: 0,
        })
    }

    /// Reads one batch of records. Returns their number.
    fn read(&mut self, buffer: &mut [u8], context: &mut Context) -> Result<usize, CollectorError> {
        for n in 0..BATCH_RECORDS {
            match self.log.read(buffer) {
                Ok(0) => return Ok(n),
                Ok(len) => self.process(&buffer[..len], context),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EAGAIN) | Some(libc::EINTR) => return Ok(n),
                    // Records were overwritten before they were read; the sequence number of the
                    // next one gives their count.
                    Some(libc::EPIPE) => {}
                    // The record is longer than the buffer; the kernel skips it.
                    Some(libc::EINVAL) => context.sink.refuse(Reason::Oversize, 1),
                    _ => return Err(CollectorError::new("reading the kernel's log", e)),
                },
            }
        }
        Ok(BATCH_RECORDS)
    }

    /// Processes one record.
    fn process(&mut self, bytes: &[u8], context: &mut Context) {
        let text = String::from_utf8_lossy(bytes);
        let Some(record) = Record::parse(&text) else {
            context.sink.refuse(Reason::BadInput, 1);
            return;
        };
        let expected = self.next.or(self.emitted.map(|last| last.saturating_add(1)));
        if let Some(gap) = expected.and_then(|n| record.sequence.checked_sub(n)) {
            // Overwritten records count as lost even if some were a program's.
            self.lost = self.lost.saturating_add(gap);
            if gap > 0 {
                context.sink.refuse(Reason::KernelRingFull, gap);
            }
        }
        self.next = Some(record.sequence.saturating_add(1));
        if self.emitted.is_some_and(|last| record.sequence <= last) {
            return;
        }
        if record.facility != 0 {
            self.skipped += 1;
        } else if self.emit(&record, context) == Err(Reason::Shutdown) {
            // The next start reads the record again.
            return;
        }
        self.cursor.advance(&format!("{} {}", self.boot, record.sequence));
    }

    fn emit(&mut self, record: &Record<'_>, context: &mut Context) -> Result<(), Reason> {
        let event = &mut self.event;
        event.clear();
        event.text(names::HOST_NAME, &context.site.node);
        unescape(record.message, &mut self.bytes);
        let message = String::from_utf8_lossy(&self.bytes);
        event.cgroup_of_kernel_line(&message, &context.site);
        event.end_entities();
        if let Some(device) = record.block_device() {
            event.text(names::TAPIO_BLOCK_DEVICE, device);
        }
        event.message(format_args!("{message}"));
        // The log's clock (printk's local_clock) advances as CLOCK_MONOTONIC does, from boot on.
        let time_ns =
            clock::monotonic_to_wall_ns().saturating_add(record.time_us.saturating_mul(1_000));
        let age_ns = clock::wall_ns().saturating_sub(time_ns);
        if let Some(first) = context.site.kernel_facts.repeated_by(&message, age_ns) {
            event.text(names::TAPIO_REPEATS, first);
        }
        let observed_ns = clock::wall_ns();
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
        event.offer(&meta, &mut context.sink)
    }
}

/// Entry point of the fuzz target: processes records that are separated by zero bytes.
///
/// # Errors
/// If the collector can't start.
#[cfg(any(test, fuzzing))]
pub fn process_records(records: &[u8], context: &mut Context) -> Result<(), CollectorError> {
    let config = Config { path: "/dev/null".into(), from_the_beginning: true, enabled: true };
    let mut run = Run::open(&config, context)?;
    records.split(|byte| *byte == 0).for_each(|record| run.process(record, context));
    Ok(())
}

fn open_error(path: &str, error: &io::Error) -> CollectorError {
    let text =
        format!("kmsg collector disabled: {path}: {error}; kernel.log events will be missing");
    match error.kind() {
        io::ErrorKind::PermissionDenied => CollectorError::Unavailable(format!(
            "{text}; remedy: grant CAP_SYSLOG, or set kernel.dmesg_restrict=0"
        )),
        io::ErrorKind::NotFound => CollectorError::Unavailable(format!(
            "{text}; remedy: mount the node's /dev/kmsg into the container"
        )),
        _ => CollectorError::Failed(format!("reading {path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn garbage_is_not_a_position() {
        let boot = "6c7c6013-a8a3-4b5a-b7a6-f1a2ae5ab8ec";
        assert_eq!(check_position(&format!("{boot} 17")), Ok(()));
        for bad in ["17", "\0\u{1}", "{}", "some words", &format!("{boot} -1"), boot] {
            assert!(check_position(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn record_is_parsed() {
        let text = "3,1042,84512334,-;blk_update_request: I/O error, dev sda, sector 1234\n \
            SUBSYSTEM=block\n DEVICE=+block:sda\n";
        let record = Record::parse(text).unwrap();
        assert_eq!((record.facility, record.level, record.sequence), (0, 3, 1042));
        assert_eq!(record.message, "blk_update_request: I/O error, dev sda, sector 1234");
        assert_eq!(record.block_device(), Some("sda"));
        let more = Record::parse("30,7,9,-,caller=T1;systemd[1]: hello").unwrap();
        assert_eq!((more.facility, more.level), (3, 6));
        assert_eq!(Record::parse("no record"), None);
        assert_eq!(Record::parse("x,1,2,-;m"), None);
    }

    /// Found by the fuzz target `kmsg`: times and numbers beyond any clock or counter.
    #[test]
    fn extreme_times_and_sequence_numbers_are_accepted() {
        let mut context = Context::for_test(Some(0));
        let far = u64::MAX;
        let records = format!("3,1,{far},-;a\03,{far},1,-;b\03,5,1,-;c");
        process_records(records.as_bytes(), &mut context).unwrap();
        let ticket = context.ticket();
        context.is_accepted(ticket);
        let (collector, generation) = (context.sink.collector(), context.sink.generation() - 1);
        let in_ring = context.site.unsettled(collector, generation);
        assert_eq!(in_ring, Some(3), "all three are in the ring");
    }

    #[test]
    fn escapes_are_replaced_by_bytes() {
        let mut out = Vec::new();
        unescape(r"a\x09b\x5cx\xzz\x", &mut out);
        assert_eq!(out, b"a\tb\\x\\xzz\\x");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in ".{0,200}") {
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
