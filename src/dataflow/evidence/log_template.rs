//! Log templates: messages that differ only in their variable parts have one template.
//!
//! The algorithm is Drain (He, Zhu, Zheng, Lyu: "Drain: An Online Log Parsing Approach with Fixed
//! Depth Tree", ICWS 2017). Messages are partitioned by their number of tokens, then by their
//! leading tokens, and join the most similar template of that leaf. Positions in which they differ
//! become wildcards. Tokens that are certainly variable (numbers, hexadecimal ids, addresses,
//! paths) are masked first.
//!
//! Each template has a rate in a recent window and a rate before it.

/// Tokens of a message that are compared.
const MAX_TOKENS: usize = 64;
/// Leading tokens that choose a leaf (the paper's depth minus two).
const LEADING_TOKENS: usize = 2;
/// Minimum share of equal tokens for a message to join a template (the paper's `st`, 0.5 for most
/// of its data sets).
const MIN_SIMILARITY: f64 = 0.5;
/// Stands for a variable part.
pub(super) const WILDCARD: &str = "<*>";
/// Length of the recent window of a template's rate.
const RECENT_NS: u64 = 60_000_000_000;
/// Minimum length of the past for a rate.
const MIN_PAST_NS: u64 = 60_000_000_000;
/// Length of the past above which its weight is halved.
const MAX_PAST_NS: u64 = 3_600_000_000_000;

/// A template and its counts.
struct Template {
    tokens: Vec<Box<str>>,
    /// Counts of the recent window, in bins, so that memory is constant.
    bins: [u32; RECENT_BINS],
    bin: u64,
    /// Count of the events before the recent window, halved when the past becomes too long.
    past: f64,
    last_ns: u64,
}

const RECENT_BINS: usize = 12;
const BIN_NS: u64 = RECENT_NS / RECENT_BINS as u64;

impl Template {
    fn new(tokens: Vec<Box<str>>, now_ns: u64) -> Self {
        Self { tokens, bins: [0; RECENT_BINS], bin: now_ns / BIN_NS, past: 0.0, last_ns: now_ns }
    }

    /// Share of equal positions; a wildcard equals nothing, as in the paper.
    fn similarity(&self, tokens: &[&str]) -> f64 {
        let same = self.tokens.iter().zip(tokens).filter(|(a, b)| ***a == ***b && **b != WILDCARD);
        match tokens.iter().filter(|t| **t != WILDCARD).count() {
            // No token is fixed: all such messages of this length are equal.
            0 => 1.0,
            fixed => same.count() as f64 / fixed as f64,
        }
    }

    fn merge(&mut self, tokens: &[&str]) {
        for (kept, token) in self.tokens.iter_mut().zip(tokens) {
            if **kept != **token {
                *kept = WILDCARD.into();
            }
        }
    }

    /// Advances the recent window.
    fn advance(&mut self, now_ns: u64) {
        let bin = now_ns / BIN_NS;
        let steps = bin.saturating_sub(self.bin);
        for step in 1..=steps.min(RECENT_BINS as u64) {
            let at = ((self.bin + step) % RECENT_BINS as u64) as usize;
            self.past += f64::from(std::mem::take(&mut self.bins[at]));
        }
        self.bin = self.bin.max(bin);
    }

    fn recent(&self) -> u32 {
        self.bins.iter().sum()
    }
}

/// The template of a message and its rate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TemplateMatch {
    /// The template's text.
    pub(super) template: String,
    /// Its count in the last minute, including this message.
    pub(super) recent: u32,
    /// Logarithm of its rate now over its rate before; `None` if the past is too short.
    pub(super) lift: Option<f64>,
}

/// The templates of one entity.
pub(super) struct Drain {
    templates: Vec<Template>,
    capacity: usize,
    since_ns: u64,
    pub(super) evicted: u64,
}

impl Drain {
    pub(super) fn new(capacity: usize, now_ns: u64) -> Self {
        Self { templates: Vec::new(), capacity: capacity.max(1), since_ns: now_ns, evicted: 0 }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.templates.len()
    }

    /// Adds a message. `None` for one without tokens.
    pub(super) fn add(&mut self, message: &str, now_ns: u64) -> Option<TemplateMatch> {
        let masked = mask(message);
        let tokens: Vec<&str> = masked.split_whitespace().take(MAX_TOKENS).collect();
        if tokens.is_empty() {
            return None;
        }
        let at = match self.find(&tokens) {
            Some(at) => at,
            None => self.create(&tokens, now_ns),
        };
        // A source's clock may step back, so the past saturates at zero.
        let past_ns = now_ns.saturating_sub(self.since_ns).saturating_sub(RECENT_NS);
        let template = self.templates.get_mut(at)?;
        template.merge(&tokens);
        template.advance(now_ns);
        let bin = (template.bin % RECENT_BINS as u64) as usize;
        template.bins[bin] = template.bins[bin].saturating_add(1);
        template.last_ns = template.last_ns.max(now_ns);
        let recent = template.recent();
        let lift = (past_ns >= MIN_PAST_NS).then(|| {
            // Half an event on both sides: one event after none isn't an infinite lift.
            let expected = template.past * RECENT_NS as f64 / past_ns as f64;
            ((f64::from(recent) + 0.5) / (expected + 0.5)).ln()
        });
        let text = template.tokens.join(" ");
        if past_ns > MAX_PAST_NS {
            self.decay(now_ns);
        }
        Some(TemplateMatch { template: text, recent, lift })
    }

    /// The most similar template of the message's leaf, if one is similar enough. A leaf is
    /// identified by the number of tokens and the leading ones. A linear search replaces the tree,
    /// because an entity has a few dozen templates at most.
    fn find(&self, tokens: &[&str]) -> Option<usize> {
        let is_in_leaf = |t: &Template| {
            t.tokens.len() == tokens.len()
                && t.tokens.iter().zip(tokens).take(LEADING_TOKENS).all(|(a, b)| **a == **b)
        };
        let of_leaf = self.templates.iter().enumerate().filter(|(_, t)| is_in_leaf(t));
        let scored = of_leaf.map(|(at, t)| (at, t.similarity(tokens)));
        scored
            .filter(|(_, similarity)| *similarity >= MIN_SIMILARITY)
            .fold(None, |best: Option<(usize, f64)>, next| match best {
                Some(best) if best.1 >= next.1 => Some(best),
                _ => Some(next),
            })
            .map(|(at, _)| at)
    }

    fn create(&mut self, tokens: &[&str], now_ns: u64) -> usize {
        if self.templates.len() >= self.capacity {
            let oldest = self.templates.iter().enumerate().min_by_key(|(at, t)| (t.last_ns, *at));
            if let Some((at, _)) = oldest {
                self.templates.remove(at);
                self.evicted += 1;
            }
        }
        let tokens = tokens.iter().map(|t| Box::from(*t)).collect();
        self.templates.push(Template::new(tokens, now_ns));
        self.templates.len() - 1
    }

    /// Halves the past and its counts, so that rates follow the recent past.
    fn decay(&mut self, now_ns: u64) {
        let past_ns = now_ns.saturating_sub(self.since_ns).saturating_sub(RECENT_NS);
        self.since_ns += past_ns / 2;
        self.templates.iter_mut().for_each(|t| {
            t.advance(now_ns);
            t.past /= 2.0;
        });
    }
}

/// Masks the certainly variable parts of a message: paths, and tokens with digits that are numbers,
/// hexadecimal, addresses, times or identifiers.
fn mask(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for token in message.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        let core = token.trim_matches(|c: char| !c.is_alphanumeric() && c != '/' && c != '-');
        if !is_variable(core) {
            out.push_str(token);
            continue;
        }
        // The text around the variable part is kept: `pid=12,` and `pid=13,` are one token.
        let (before, after) = token.split_once(core).unwrap_or(("", ""));
        out.push_str(before);
        match core.split_once('=') {
            Some((key, _)) if !key.is_empty() => {
                out.push_str(key);
                out.push('=');
            }
            _ => {}
        }
        out.push_str(WILDCARD);
        out.push_str(after);
    }
    out
}

fn is_variable(token: &str) -> bool {
    let value = token.split_once('=').map_or(token, |(_, value)| value);
    if value.starts_with('/') && value.len() > 1 {
        return true;
    }
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let hex = value.strip_prefix("0x").unwrap_or(value);
    let is_hex = hex.len() >= 8 && hex.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    // A number with a unit, or an address, time or version: mostly digits and punctuation.
    let letters = value.bytes().filter(u8::is_ascii_alphabetic).count();
    digits > 0 && (letters <= 2 || is_hex)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn variable_parts_are_masked() {
        for (message, expected) in [
            ("took 12ms for pid=4711, user bob", "took <*> for pid=<*>, user bob"),
            ("read /var/lib/x/y.db failed", "read <*> failed"),
            ("peer 10.0.0.7:443 reset", "peer <*> reset"),
            ("id 3f2b8c1e-5d47-4a90-9b1c-7e6f5a4d3c2b gone", "id <*> gone"),
            ("at 0xdeadbeef01 (core)", "at <*> (core)"),
            ("the cafe added facade", "the cafe added facade"),
            ("2026-01-02T03:04:05Z ready", "<*> ready"),
        ] {
            assert_eq!(mask(message), expected);
        }
    }

    #[test]
    fn messages_that_differ_in_one_token_share_a_template() {
        let mut drain = Drain::new(16, 0);
        drain.add("connection to database lost for user alice", S).unwrap();
        let mined = drain.add("connection to database lost for user bob", 2 * S).unwrap();
        assert_eq!(mined.template, "connection to database lost for user <*>");
        assert_eq!((mined.recent, drain.len()), (2, 1));
        drain.add("connection to database made for the first time", 3 * S).unwrap();
        assert_eq!(drain.len(), 2, "different length, different template");
        drain.add("shutting down all of the seven workers", 3 * S).unwrap();
        assert_eq!(drain.len(), 3, "different leading tokens, different template");
    }

    #[test]
    fn lift_compares_rate_now_with_rate_before() {
        let mut drain = Drain::new(16, 0);
        let usual = "worker is alive and well";
        for second in 0..600 {
            drain.add(usual, second * S).unwrap();
        }
        let same = drain.add(usual, 600 * S).unwrap().lift.unwrap();
        assert!(same.abs() < 0.1, "unchanged rate: {same}");
        let new = drain.add("worker has lost its mind", 601 * S).unwrap().lift.unwrap();
        assert!((new - 3f64.ln()).abs() < 0.01, "1.5 against 0.5: {new}");
        let mut stormy = 0.0;
        for _ in 0..100 {
            stormy = drain.add("worker has lost its mind", 602 * S).unwrap().lift.unwrap();
        }
        assert!(stormy > 5.0, "{stormy}");
    }

    #[test]
    fn short_past_has_no_lift() {
        let mut drain = Drain::new(16, 100 * S);
        assert_eq!(drain.add("hello there", 100 * S).unwrap().lift, None);
        assert_eq!(drain.add("hello there", 150 * S).unwrap().lift, None);
        assert_eq!(drain.add("   ", 150 * S), None);
    }

    #[test]
    fn long_past_decays() {
        let mut drain = Drain::new(16, 0);
        for second in 0..8 * 3600 {
            drain.add("tick tock", second * S).unwrap();
        }
        let lift = drain.add("tick tock", 8 * 3600 * S).unwrap().lift.unwrap();
        assert!(lift.abs() < 0.15, "decay keeps the rate: {lift}");
        assert!(drain.since_ns > 4 * 3600 * S);
    }

    proptest! {
        /// Every message fits its template, templates are bounded, and a message that is added
        /// twice has the same template both times.
        #[test]
        fn templates_cover_their_messages(
            messages in prop::collection::vec("[a-c]{1,2}( [a-d0-9]{1,3}){0,5}", 1..60),
        ) {
            let mut drain = Drain::new(8, 0);
            for (second, message) in messages.iter().enumerate() {
                let mined = drain.add(message, second as u64 * S).unwrap();
                let again = drain.add(message, second as u64 * S).unwrap();
                prop_assert_eq!(&mined.template, &again.template);
                prop_assert_eq!(again.recent, mined.recent + 1);
                prop_assert!(drain.len() <= 8);
                let masked = mask(message);
                let words: Vec<&str> = masked.split_whitespace().collect();
                let tokens: Vec<&str> = mined.template.split(' ').collect();
                prop_assert_eq!(tokens.len(), words.len());
                for (token, word) in tokens.iter().zip(&words) {
                    prop_assert!(token == word || *token == WILDCARD, "{} {}", mined.template, masked);
                }
                prop_assert!(drain.templates.iter().all(|t| t.recent() > 0 || t.past > 0.0));
            }
        }
    }
}
