//! Reading the log for facts of one contract and of some times: what can't hold any isn't read.

use std::sync::Arc;

use headwater_schema::{Problem, Sequence, SequencedBatch};

use super::LogReader;
use crate::Wanted;
use crate::segment::{Segment, Span};

impl LogReader {
    /// Batches from a sequence on, at least one where there is any that is wanted, about `facts_max`
    /// facts; and the sequence to go on from.
    pub fn read_of(
        &self,
        wanted: &Wanted,
        from: Sequence,
        facts_max: usize,
    ) -> Result<(Vec<Arc<SequencedBatch>>, Sequence), Problem> {
        let (mut found, mut facts, mut next) = (Vec::new(), 0, from);
        for segment in self.segments().iter().filter(|s| s.next_sequence > from) {
            let end = segment.next_sequence;
            if segment.first_sequence > wanted.until {
                break;
            }
            if has_none(segment, wanted) {
                next = end;
                continue;
            }
            let segment = self.opened(segment)?;
            let first = segment.span_of(next).unwrap_or(0);
            for span in first..segment.spans.len() {
                if facts >= facts_max {
                    return Ok((found, next));
                }
                let about = &segment.spans[span];
                next = next.max(about.first_sequence + about.facts);
                if outside(about, wanted) {
                    continue;
                }
                for frame in &self.decoded(&segment, span)? {
                    let Some(batch) = frame.batch() else {
                        continue;
                    };
                    let here = batch.last_sequence() >= from && !batch.batch.is_empty();
                    if here && batch.batch.contract == wanted.contract {
                        facts += batch.batch.len();
                        found.push(batch.clone());
                    }
                }
            }
            next = next.max(end);
        }
        Ok((found, next))
    }
}

/// Whether a segment has no fact that is wanted.
fn has_none(segment: &Segment, wanted: &Wanted) -> bool {
    let summary = segment.contracts.get(wanted.contract.as_ref());
    summary.is_none_or(|s| s.facts == 0) || segment.spans.iter().all(|span| outside(span, wanted))
}

fn outside(span: &Span, wanted: &Wanted) -> bool {
    span.facts == 0
        || span.time_max < wanted.time_min
        || span.time_min > wanted.time_max
        || span.first_sequence > wanted.until
}
