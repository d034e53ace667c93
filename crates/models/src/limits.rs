//! How large a model file and a batch may be. A file beyond one of these is refused while it is read.

use headwater_schema::Problem;

/// Bytes of a model file.
pub const MODEL_BYTES_MAX: usize = 256 << 20;
/// Trees of one model.
pub const TREES_MAX: usize = 200_000;
/// Nodes of all trees, leaves included.
pub const NODES_MAX: usize = 16_000_000;
/// Splits between a tree's root and a leaf.
pub const TREE_DEPTH_MAX: usize = 512;
/// Columns that a model asks for.
pub const INPUTS_MAX: usize = 1 << 20;
/// Scores of one row: classes, or targets.
pub const SCORES_MAX: usize = 10_000;
/// Numbers that all leaves hold together.
pub const LEAF_VALUES_MAX: usize = 64_000_000;
/// Categories in all sets of a model's splits together.
pub const MEMBERS_MAX: usize = 16_000_000;
/// What trees ask of columns: thresholds at one, values to be equal to and sets to be in, each set and value once.
pub const PLACES_MAX: usize = 1 << 20;
/// Bytes of a name or a category.
pub const NAME_BYTES_MAX: usize = 4096;
/// Bytes of a text that a model is given.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Tokens of a text that a network reads.
pub const TOKENS_MAX: usize = 2048;
/// Numbers in one batch of rows, and in what is answered to it.
pub const BATCH_VALUES_MAX: usize = 1 << 27;

/// Refuses `seen` of `what` where it is above `most`.
pub(crate) fn at_most(what: &str, seen: usize, most: usize) -> Result<(), Problem> {
    if seen <= most {
        return Ok(());
    }
    Err(Problem::user("model-limit", "A model is too large")
        .detail(format!("It has {seen} {what}; {most} are allowed"))
        .hint("Train with fewer or smaller trees"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed() {
        assert!(at_most("trees", 3, 3).is_ok());
        assert_eq!(at_most("trees", 4, 3).unwrap_err().code, "model-limit");
    }
}
