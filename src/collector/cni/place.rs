//! Which allocations were told, over restarts: the time of the newest, the names of those with that very time, and what is
//! given, so that what was taken back meanwhile is known to have been.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::allocations::Allocation;
use crate::runtime::Context;
use crate::runtime::cursor::Cursor;
use tapio_core::clock;

/// The most addresses that are written down: more than a node has pods for. Of others it isn't told that they were taken
/// back while the agent was away.
const MAX_GIVEN: usize = 4096;

/// How far the telling has come.
pub(super) struct Place {
    cursor: Cursor,
    before_ns: u64,
    told_before: Vec<String>,
    newest_ns: u64,
    newest: Vec<String>,
    given: BTreeMap<(String, IpAddr), Allocation>,
    /// Whether the cursor doesn't say so yet.
    moved: bool,
}

fn name(allocation: &Allocation) -> String {
    format!("{}/{}", allocation.network, allocation.address)
}

/// A line of the position.
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

/// What [`parse`] reads; `None` for what would break the line.
fn line(allocation: &Allocation) -> Option<String> {
    let Allocation { network, address, since_ns, container_id, ifname } = allocation;
    let whole = |text: &&String| !text.contains(char::is_whitespace);
    [network, container_id, ifname]
        .iter()
        .all(whole)
        .then(|| format!("\n{network} {address} {since_ns} {container_id} {ifname}"))
}

impl Place {
    /// The place at which the last run ended.
    pub(super) fn open(context: &Context) -> std::io::Result<Self> {
        let cursor = Cursor::open(context.site.state_dir.as_deref(), "cni")?;
        let mut lines = cursor.saved().lines();
        let mut words = lines.next().unwrap_or_default().split_whitespace();
        let before_ns = words.next().and_then(|w| w.parse().ok());
        let told_before: Vec<String> = words.map(str::to_owned).collect();
        let given = lines.filter_map(parse).map(|a| ((a.network.clone(), a.address), a)).collect();
        // At the very first start nothing that is there already is news.
        let before_ns = before_ns.unwrap_or_else(clock::wall_ns);
        let newest = told_before.clone();
        let newest_ns = before_ns;
        Ok(Self { cursor, before_ns, told_before, newest_ns, newest, given, moved: true })
    }

    /// What was given when the last run ended.
    pub(super) fn given(&self) -> impl Iterator<Item = &Allocation> {
        self.given.values()
    }

    /// Whether an allocation that was found is one that no run has told.
    pub(super) fn is_news(&self, allocation: &Allocation) -> bool {
        match allocation.since_ns.cmp(&self.before_ns) {
            Ordering::Less => false,
            Ordering::Equal => !self.told_before.contains(&name(allocation)),
            Ordering::Greater => true,
        }
    }

    /// It was told, or `news` says that it needn't be.
    pub(super) fn told(&mut self, allocation: &Allocation, news: bool) {
        let key = (allocation.network.clone(), allocation.address);
        if self.given.len() < MAX_GIVEN || self.given.contains_key(&key) {
            self.given.insert(key, allocation.clone());
        }
        self.moved = true;
        if !news {
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

    /// That it was taken back was told.
    pub(super) fn taken_back(&mut self, allocation: &Allocation) {
        let key = (allocation.network.clone(), allocation.address);
        if self.given.get(&key) == Some(allocation) {
            self.given.remove(&key);
        }
        self.moved = true;
    }

    /// Whether something of it waits to be saved.
    pub(super) fn is_waiting(&self) -> bool {
        self.cursor.is_pending()
    }

    /// Nothing older than the newest waits any more.
    pub(super) fn advance(&mut self) {
        if !std::mem::take(&mut self.moved) {
            return;
        }
        let mut position = self.newest_ns.to_string();
        for name in &self.newest {
            position.push(' ');
            position.push_str(name);
        }
        self.given.values().filter_map(line).for_each(|line| position.push_str(&line));
        self.cursor.advance(&position);
    }

    /// As [`Cursor::settle`].
    pub(super) fn settle(&mut self, context: &Context) -> std::io::Result<bool> {
        self.cursor.try_save(context)
    }

    /// As [`Cursor::finish`].
    pub(super) fn finish(&mut self, context: &mut Context) -> std::io::Result<()> {
        self.cursor.finish(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let allocation = Allocation {
            network: "podnet".into(),
            address: IpAddr::from([10, 1, 0, 2]),
            container_id: "abc".into(),
            ifname: String::new(),
            since_ns: 7,
        };
        assert_eq!(
            parse(line(&allocation).unwrap().trim_start_matches('\n')),
            Some(allocation.clone())
        );
        assert_eq!(line(&Allocation { ifname: "a b".into(), ..allocation }), None);
        assert_eq!(parse("podnet nonsense 7 abc eth0"), None);
    }
}
