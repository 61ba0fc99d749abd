//! The second lane: the same rules over the same events in the order of their times, behind the
//! watermark. What the first lane told at once, in the order of arrival, is corrected here where the two
//! differ; a story ends with what this lane says.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::evidence::Draft;
use crate::matcher::lane::{Lane, LaneOptions};
use crate::rules::RuleSet;
use crate::shard::watermark::Reorder;
use crate::story::open::Unknown;
use tapio_core::event::{EventId, Story, StoryState, TraceId};
use tapio_core::ring::{OwnedRecord, Record};

/// What the second lane has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettledStats {
    /// Events that wait for their place in the order now.
    pub waiting: u64,
    /// Events that went on before their time, for want of room.
    pub forced: u64,
    /// Events whose place had been given out when they came.
    pub late: u64,
    /// Stories that began with another event than the order of arrival said.
    pub relinked: u64,
    /// Stories the order of arrival suggested and the order of times doesn't bear out.
    pub retracted: u64,
    /// Stories given up for room before anybody was told of them.
    pub untold: u64,
}

/// Ended stories that are remembered.
const MAX_OVER: usize = 1_024;

/// A story the first lane told.
struct Told {
    rule: String,
    key: Vec<(String, String)>,
    revision: u32,
    members: Vec<EventId>,
    /// Somebody has been told of it; else only its members carry its trace.
    announced: bool,
    /// Another story has taken its place.
    linked: bool,
    /// As it ended in the first lane.
    ended: Option<Draft>,
}

/// The second lane of a shard.
pub(crate) struct Settled {
    lane: Lane,
    waiting: Reorder,
    /// Events that were too late before a restart, and when they came: by then everything else that had come had its
    /// place, which it is given again first.
    late_before: VecDeque<(u64, Arc<OwnedRecord>)>,
    told: HashMap<TraceId, Told, ahash::RandomState>,
    /// The latest stories that were told to their end; the first lane may still have them open.
    over: VecDeque<TraceId>,
    /// Stories of the first lane that are remembered at once; a further one isn't told before it ends.
    most: usize,
    /// How long after its last event a story that the first lane ended may still be confirmed.
    patience_ns: u64,
    out: Vec<Draft>,
    stats: SettledStats,
    arrivals: u64,
}

impl Settled {
    pub(crate) fn new(rules: &Arc<RuleSet>, shard: usize, options: LaneOptions) -> Self {
        let options = LaneOptions {
            tell_open: false,
            record_matches: false,
            unknown: Unknown::Asked,
            ..options
        };
        Self {
            lane: Lane::new(Arc::clone(rules), shard, options),
            waiting: Reorder::new(rules.slack_ns()),
            late_before: VecDeque::new(),
            told: HashMap::default(),
            over: VecDeque::new(),
            most: 2 * options.max_stories,
            patience_ns: patience_ns(rules),
            out: Vec::new(),
            stats: SettledStats::default(),
            arrivals: 0,
        }
    }

    /// Goes on with other rules, after the first lane has. The story of a rule that is gone ends as the first
    /// lane told it, where it hasn't been borne out here: nothing will.
    pub(crate) fn reload(&mut self, rules: &Arc<RuleSet>) {
        self.lane.reload(rules);
        self.confirm();
        let stays = |told: &Told| {
            told.ended.is_none() || rules.rules.iter().any(|r| r.name.text() == told.rule)
        };
        let mut gone: Vec<TraceId> =
            self.told.iter().filter(|(_, told)| !stays(told)).map(|(id, _)| *id).collect();
        gone.sort_unstable();
        for id in gone {
            let Some(told) = self.told.remove(&id) else { continue };
            if let Some(mut draft) = told.ended.filter(|_| told.announced) {
                draft.story.revision = told.revision + 1;
                self.out.push(draft);
                self.end(id);
            }
        }
        self.patience_ns = patience_ns(rules);
        self.waiting.set_slack(rules.slack_ns());
    }

    pub(crate) fn stats(&self) -> SettledStats {
        let (waiting, forced) = (self.waiting.len() as u64, self.waiting.forced);
        let untold = self.lane.stats().untold;
        SettledStats { waiting, forced, untold, ..self.stats }
    }

    /// What comes now was seen before a restart.
    pub(crate) fn show_past(&mut self) {
        self.waiting.show_past();
    }

    /// What was shown so far was seen before a restart.
    pub(crate) fn go_on_after_break(&mut self) {
        self.waiting.go_on_after_break();
    }

    /// Whether something here waits for time to pass.
    pub(crate) fn waits(&self) -> bool {
        self.waiting.len() > 0 || !self.told.is_empty()
    }

    /// Whether an event came too late for its place: it starts, advances and negates nothing.
    pub(crate) fn is_late(&self, time_ns: u64) -> bool {
        self.waiting.is_late(time_ns)
    }

    /// Takes an event that came too late.
    pub(crate) fn late(&mut self, record: &Record<'_>) {
        self.stats.late += 1;
        self.lane.late(record, &mut Vec::new());
    }

    /// Takes an event that came too late before a restart, at `observed_ns`.
    pub(crate) fn was_late(&mut self, record: &Record<'_>, observed_ns: u64) {
        self.stats.late += 1;
        self.late_before.push_back((observed_ns, Arc::new(record.to_owned())));
    }

    /// Takes note of an event; `kept` is a copy where rules have a use for it.
    pub(crate) fn event(
        &mut self,
        record: &Record<'_>,
        kept: Option<Arc<OwnedRecord>>,
        now_ns: u64,
    ) {
        let Some(event) = record.event() else { return };
        let collector = record.header().collector;
        self.waiting.observe(collector, event.clock_quality(), event.time(), now_ns);
        if let Some(kept) = kept {
            self.arrivals += 1;
            // Where the sink numbers its events, that is the source's own order.
            let order = match record.header().order {
                0 => self.arrivals,
                order => order,
            };
            self.waiting.hold(order, kept);
            if self.waiting.is_full() {
                self.release(now_ns);
            }
        }
    }

    fn release(&mut self, now_ns: u64) {
        while let Some(kept) = self.waiting.pop() {
            self.late_until(kept.record().header().time_ns);
            self.lane.kept_event(&kept, now_ns);
            let told = &self.told;
            self.lane.tell_given_up(|id| told.get(&id).is_some_and(|t| t.announced));
        }
        self.late_until(self.waiting.released_ns());
    }

    fn late_until(&mut self, time_ns: u64) {
        while self.late_before.front().is_some_and(|(came_ns, _)| *came_ns < time_ns) {
            let Some((_, kept)) = self.late_before.pop_front() else { return };
            self.lane.late(&kept.record(), &mut Vec::new());
        }
    }

    /// What the first lane tells while its stories are open. False where the story has been told to
    /// its end here.
    pub(crate) fn opened(&mut self, draft: &Draft) -> bool {
        let story = &draft.story;
        let is_full = self.told.len() >= self.most && !self.told.contains_key(&story.id);
        if is_full || self.over.contains(&story.id) {
            return false;
        }
        self.note(story).announced = true;
        true
    }

    fn note(&mut self, story: &Story) -> &mut Told {
        let told = self.told.entry(story.id).or_insert_with(|| Told {
            rule: story.rule.clone(),
            key: story.key.clone(),
            revision: 0,
            members: Vec::new(),
            announced: false,
            linked: false,
            ended: None,
        });
        told.revision = story.revision;
        told.members = story.members.iter().map(|m| m.id).collect();
        told
    }

    /// What ended in the first lane. Its end is told when the second lane has seen it, too.
    pub(crate) fn ended(&mut self, drafts: Vec<Draft>) {
        for draft in drafts {
            let id = draft.story.id;
            if self.over.contains(&id) {
                continue;
            }
            if self.told.len() < self.most || self.told.contains_key(&id) {
                let revision = self.told.get(&id).map_or(0, |told| told.revision);
                let told = self.note(&draft.story);
                told.revision = revision;
                told.ended = Some(draft);
            }
        }
    }

    /// Moves time on: shows what the watermark has passed, and ends what is over.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        let reached_ns = self.waiting.advance(now_ns);
        self.release(now_ns);
        self.lane.advance_to(reached_ns, now_ns);
        self.confirm();
        let patience_ns = self.patience_ns;
        let over = |told: &Told| {
            let last_ns = told.ended.as_ref().map(|draft| draft.story.last_ns);
            last_ns.is_some_and(|last| last.saturating_add(patience_ns) < reached_ns)
        };
        // A story that is open here has been borne out already.
        let doubtful = |id: &TraceId| self.lane.stories.ends(*id).is_none();
        let unconfirmed = self.told.iter().filter(|(id, told)| over(told) && doubtful(id));
        let mut ids: Vec<TraceId> = unconfirmed.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.into_iter().for_each(|id| self.retract(id));
    }

    /// Everything waits for nothing more: the agent ends, after the first lane has.
    pub(crate) fn finish(&mut self, now_ns: u64) {
        self.waiting.end();
        self.release(now_ns);
        self.lane.finish(false);
        self.confirm();
        let mut ids: Vec<TraceId> = self.told.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter().for_each(|id| self.retract(id));
    }

    /// Tells the stories that ended here, as updates of what the first lane told.
    fn confirm(&mut self) {
        let (_, ended) = self.lane.take_stories();
        for mut draft in ended {
            let story = &mut draft.story;
            if let Some(told) = self.told.remove(&story.id) {
                story.revision = told.revision + u32::from(told.announced);
            } else if let Some((other, told)) = same_story(&mut self.told, story) {
                // It is taken back when its own time is over: it may still be confirmed.
                told.linked = true;
                story.provisional = Some(other);
                self.stats.relinked += 1;
            }
            let id = story.id;
            self.out.push(draft);
            self.end(id);
        }
    }

    /// Remembers that a story has been told to its end.
    fn end(&mut self, id: TraceId) {
        if self.over.len() >= MAX_OVER {
            self.over.pop_front();
        }
        self.over.push_back(id);
    }

    fn retract(&mut self, id: TraceId) {
        let Some(told) = self.told.remove(&id) else { return };
        if let Some(mut draft) = told.ended.filter(|_| told.announced) {
            draft.story.state = StoryState::Retracted;
            draft.story.revision = told.revision + 1;
            self.stats.retracted += 1;
            self.out.push(draft);
            self.end(id);
        }
    }

    /// Stories told since the last look.
    pub(crate) fn take(&mut self) -> Vec<Draft> {
        std::mem::take(&mut self.out)
    }
}

/// How long after its last event a story may still be confirmed: no rule takes longer.
fn patience_ns(rules: &RuleSet) -> u64 {
    rules.rules.iter().map(|r| r.within_ns().max(r.story.idle_ns)).max().unwrap_or(0)
}

/// The story that the first lane told under another trace: of the same rule and key, with as many of
/// the members as possible.
fn same_story<'a>(
    told: &'a mut HashMap<TraceId, Told, ahash::RandomState>,
    story: &Story,
) -> Option<(TraceId, &'a mut Told)> {
    let same =
        told.iter_mut().filter(|(_, t)| !t.linked && t.rule == story.rule && t.key == story.key);
    let shared = |t: &Told| story.members.iter().filter(|m| t.members.contains(&m.id)).count();
    same.map(|(id, t)| (shared(t), *id, t))
        .filter(|(shared, ..)| *shared > 0)
        .max_by_key(|(shared, id, _)| (*shared, *id))
        .map(|(_, id, t)| (id, t))
}
