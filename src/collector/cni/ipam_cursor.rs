//! The cursor of the allocations across restarts: the time of the newest emitted allocation, the
//! names of all with that time, and the current allocations, from which the next run finds those
//! that were released meanwhile.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::allocations::Allocation;
use crate::runtime::Context;
use crate::runtime::cursor::Cursor;
use tapio_core::clock;

/// Allocations that the cursor contains; a node has fewer pods. The release of others is missed if
/// it happens while the agent doesn't run.
const MAX_SAVED: usize = 4096;

/// The position in the history of allocations.
pub(super) struct IpamCursor {
    cursor: Cursor,
    /// Time of the newest allocation that an earlier run emitted, and the names of all of that
    /// time.
    previous_ns: u64,
    previous: Vec<String>,
    /// The same for this run.
    newest_ns: u64,
    newest: Vec<String>,
    current: BTreeMap<(String, IpAddr), Allocation>,
    /// Whether the position has changed since it was last passed to the cursor.
    has_changed: bool,
}

fn name(allocation: &Allocation) -> String {
    format!("{}/{}", allocation.network, allocation.address)
}

/// Parses an allocation of the cursor's text.
fn parse(line: &str) -> Option<Allocation> {
    let mut words = line.split(' ');
    Some(Allocation {
        network: words.next()?.to_owned(),
        address: words.next()?.parse().ok()?,
        since_ns: words.next()?.parse().ok()?,
        container_id: words.next()?.to_owned(),
        ifname: words.next().unwrap_or_default().to_owned(),
    })
}

/// The line that [`parse`] reads; `None` if a name has whitespace.
fn to_line(allocation: &Allocation) -> Option<String> {
    let Allocation { network, address, since_ns, container_id, ifname } = allocation;
    let is_one_word = |text: &&String| !text.contains(char::is_whitespace);
    [network, container_id, ifname]
        .iter()
        .all(is_one_word)
        .then(|| format!("\n{network} {address} {since_ns} {container_id} {ifname}"))
}

/// Checks the first line of a cursor, which begins with a time. Other lines are skipped one by one.
fn check_saved(saved: &str) -> Result<(), String> {
    let time = saved.split_whitespace().next().unwrap_or_default();
    match time.parse::<u64>() {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("the first word isn't a time: {e}")),
    }
}

impl IpamCursor {
    /// Reads the position at which the previous run ended.
    pub(super) fn open(context: &Context) -> std::io::Result<Self> {
        let cursor = Cursor::open(context, "cni", check_saved)?;
        let mut lines = cursor.saved().lines();
        let mut words = lines.next().unwrap_or_default().split_whitespace();
        let previous_ns = words.next().and_then(|w| w.parse().ok());
        let previous: Vec<String> = words.map(str::to_owned).collect();
        let current =
            lines.filter_map(parse).map(|a| ((a.network.clone(), a.address), a)).collect();
        // The very first start doesn't emit allocations that exist already.
        let previous_ns = previous_ns.unwrap_or_else(clock::wall_ns);
        Ok(Self {
            cursor,
            previous_ns,
            newest_ns: previous_ns,
            newest: previous.clone(),
            previous,
            current,
            has_changed: true,
        })
    }

    /// The current allocations; before the first change, those of the previous run.
    pub(super) fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.current.values()
    }

    /// Whether no earlier run has emitted a found allocation.
    pub(super) fn is_new(&self, allocation: &Allocation) -> bool {
        match allocation.since_ns.cmp(&self.previous_ns) {
            Ordering::Less => false,
            Ordering::Equal => !self.previous.contains(&name(allocation)),
            Ordering::Greater => true,
        }
    }

    /// Adds an allocation. `emitted`: it was emitted; otherwise an earlier run did.
    pub(super) fn add(&mut self, allocation: &Allocation, emitted: bool) {
        let key = (allocation.network.clone(), allocation.address);
        if self.current.len() < MAX_SAVED || self.current.contains_key(&key) {
            self.current.insert(key, allocation.clone());
        }
        self.has_changed = true;
        if !emitted {
            return;
        }
        if allocation.since_ns > self.newest_ns {
            self.newest_ns = allocation.since_ns;
            self.newest.clear();
        }
        if allocation.since_ns == self.newest_ns {
            self.newest.push(name(allocation));
        }
    }

    /// Removes a released allocation.
    pub(super) fn remove(&mut self, allocation: &Allocation) {
        let key = (allocation.network.clone(), allocation.address);
        if self.current.get(&key) == Some(allocation) {
            self.current.remove(&key);
        }
        self.has_changed = true;
    }

    /// Whether a position waits to be saved.
    pub(super) fn is_pending(&self) -> bool {
        self.cursor.is_pending()
    }

    /// Advances the cursor to the newest allocation. No older one may still wait to be emitted.
    pub(super) fn advance(&mut self) {
        if !std::mem::take(&mut self.has_changed) {
            return;
        }
        let mut position = self.newest_ns.to_string();
        for name in &self.newest {
            position.push(' ');
            position.push_str(name);
        }
        self.current.values().filter_map(to_line).for_each(|line| position.push_str(&line));
        self.cursor.advance(&position);
    }

    /// See [`Cursor::try_save`].
    pub(super) fn try_save(&mut self, context: &mut Context) -> std::io::Result<bool> {
        self.cursor.try_save(context)
    }

    /// See [`Cursor::finish`].
    pub(super) fn finish(&mut self, context: &mut Context) -> std::io::Result<()> {
        self.cursor.finish(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_not_a_cursor() {
        assert_eq!(check_saved("17 podnet/10.1.0.2\npodnet 10.1.0.2 7 abc eth0"), Ok(()));
        for bad in ["podnet 10.1.0.2 7", "\0\u{1}", "{}", "-1"] {
            assert!(check_saved(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn saved_line_is_parsed_back() {
        let allocation = Allocation {
            network: "podnet".into(),
            address: IpAddr::from([10, 1, 0, 2]),
            container_id: "abc".into(),
            ifname: String::new(),
            since_ns: 7,
        };
        assert_eq!(
            parse(to_line(&allocation).unwrap().trim_start_matches('\n')),
            Some(allocation.clone())
        );
        assert_eq!(to_line(&Allocation { ifname: "a b".into(), ..allocation }), None);
        assert_eq!(parse("podnet nonsense 7 abc eth0"), None);
    }
}
