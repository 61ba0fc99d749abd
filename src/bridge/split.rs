//! Divides a batch that the server refuses, to find the items that it objects to.
//!
//! The pieces are the same whenever a batch is divided: after a restart, when the whole batch is
//! sent again, the server recognises those that it has.

use prost::Message as _;

use super::batch::{Accounts, QueuedBatch};
use tapio_core::ring::MAX_ACCOUNTS;
use tapio_wire::{Batch, expanded, grpc_framed, proto};

/// Pieces of a batch: three levels find one item among 4,096.
const PIECES: usize = 16;

/// Divides a batch of several items; `None` if it can't be decoded.
pub(super) fn split(batch: &QueuedBatch) -> Option<Vec<QueuedBatch>> {
    let whole = match expanded(&Batch::parse(batch.message()).ok()?).ok()? {
        Some(events) => proto::EventBatch::decode(events).ok()?,
        None => proto::EventBatch::decode(batch.message()).ok()?,
    };
    let size = (batch.items as usize).div_ceil(PIECES).max(1);
    let mut events = whole.events.into_iter();
    let mut stories = whole.stories.into_iter();
    let mut left = batch.accounts;
    let mut first_sequence = whole.first_sequence;
    let mut pieces = Vec::with_capacity(PIECES);
    loop {
        let events: Vec<_> = events.by_ref().take(size).collect();
        let stories: Vec<_> = stories.by_ref().take(size - events.len()).collect();
        let (event_count, story_count) = (events.len() as u32, stories.len() as u32);
        let items = event_count + story_count;
        if items == 0 {
            return Some(pieces);
        }
        let piece = proto::EventBatch {
            first_sequence,
            count: items,
            node: whole.node.clone(),
            epoch: whole.epoch,
            names: whole.names.clone(),
            events,
            stories,
            ..Default::default()
        };
        pieces.push(QueuedBatch {
            framed: grpc_framed(&piece.encode_to_vec()),
            first_sequence,
            items,
            events: event_count,
            stories: story_count,
            accounts: take_events(&mut left, event_count),
            is_answered: false,
            refusal: None,
            objections: 0,
            ..*batch
        });
        first_sequence += u64::from(items);
    }
}

/// Takes `n` events out of the accounts. Which collector an event is from isn't in the batch: where
/// a batch has events of several, a refused one may count as another collector's.
fn take_events(from: &mut Accounts, mut n: u32) -> Accounts {
    let mut taken = [0; MAX_ACCOUNTS];
    for (from, taken) in from.iter_mut().zip(&mut taken) {
        *taken = n.min(*from);
        *from -= *taken;
        n -= *taken;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FramePosition;

    fn batch(events: u32, stories: u32) -> QueuedBatch {
        let whole = proto::EventBatch {
            first_sequence: 100,
            count: events + stories,
            node: "n".into(),
            epoch: 7,
            names: vec!["kind".into()],
            events: (0..events)
                .map(|n| proto::Event { id: vec![n as u8; 16], ..Default::default() })
                .collect(),
            stories: (0..stories).map(|_| proto::Story::default()).collect(),
            collector_events: vec![0, events / 2, events - events / 2],
            ..Default::default()
        };
        let position = FramePosition { segment: 3, offset: 96 };
        QueuedBatch::spooled(&whole.encode_to_vec(), position, 7, 9).unwrap()
    }

    #[test]
    fn log_records_of_a_block_are_events_of_the_pieces() {
        let record = [2 << 3 | 2, 4, 5 << 3 | 2, 2, 1 << 3 | 2, 0];
        let block = proto::LogBlock {
            records: 40,
            resource_digest: vec![1; 16],
            log_records: record.repeat(40),
            ..Default::default()
        };
        let whole = proto::EventBatch {
            first_sequence: 100,
            count: 40,
            node: "n".into(),
            epoch: 7,
            collector_events: vec![40],
            log_blocks: vec![block],
            ..Default::default()
        };
        let position = FramePosition { segment: 3, offset: 96 };
        let whole = QueuedBatch::spooled(&whole.encode_to_vec(), position, 7, 9).unwrap();
        let pieces = split(&whole).unwrap();
        let events = |piece: &QueuedBatch| Batch::parse(piece.message()).unwrap().events;
        assert_eq!((pieces.len(), pieces.iter().map(events).sum::<u32>()), (14, 40));
        assert_eq!(pieces.last().unwrap().end_sequence(), whole.end_sequence());
        assert_eq!(pieces.iter().map(|piece| piece.accounts[0]).sum::<u32>(), 40);
    }

    #[test]
    fn pieces_have_every_item_once_and_sum_to_the_accounts() {
        for (events, stories) in [(2, 0), (0, 2), (16, 0), (17, 5), (200, 1), (1, 40)] {
            let whole = batch(events, stories);
            let pieces = split(&whole).unwrap();
            assert!(pieces.len() > 1 && pieces.len() <= PIECES, "{}", pieces.len());
            let mut next = 100;
            let (mut ids, mut accounts) = (Vec::new(), [0; MAX_ACCOUNTS]);
            for piece in &pieces {
                assert_eq!((piece.first_sequence, piece.epoch), (next, 7));
                next = piece.end_sequence();
                let parsed = Batch::parse(piece.message()).unwrap();
                assert_eq!((parsed.events, parsed.stories), (piece.events, piece.stories));
                assert_eq!(piece.accounts.iter().sum::<u32>(), piece.events);
                accounts.iter_mut().zip(piece.accounts).for_each(|(sum, n)| *sum += n);
                let decoded = proto::EventBatch::decode(piece.message()).unwrap();
                ids.extend(decoded.events.iter().map(|event| event.id[0]));
                assert_eq!(piece.position, whole.position);
            }
            assert_eq!(next, whole.end_sequence());
            assert_eq!(accounts, whole.accounts);
            assert_eq!(ids, (0..events).map(|n| n as u8).collect::<Vec<_>>());
        }
    }
}
