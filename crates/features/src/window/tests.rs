//! Windows as they are written: what each means, what its feature is called, what is refused.

use super::*;

fn read(json: serde_json::Value) -> Result<NamedWindow, Problem> {
    read_window("f", &serde_json::from_value(json).expect("a window"))
}

#[test]
fn every_mode_is_read_with_its_defaults() {
    let grid = |every, align| Grid { every, align };
    let sawtooth = |width, grid| WindowKind::Sawtooth { width, grid };
    let hopping = |width, grid, partial| WindowKind::Hopping {
        width,
        grid,
        partial,
    };
    let cases = [
        (r#""12d""#, "12d", WindowKind::Exact { width: 12 * DAY }),
        (
            r#"{"sawtooth": "12d"}"#,
            "sawtooth_12d",
            sawtooth(12 * DAY, grid(DAY, 0)),
        ),
        (
            r#"{"sawtooth": "287h"}"#,
            "sawtooth_287h",
            sawtooth(287 * HOUR, grid(HOUR, 0)),
        ),
        (
            r#"{"sawtooth": "12h"}"#,
            "sawtooth_12h",
            sawtooth(12 * HOUR, grid(HOUR, 0)),
        ),
        (
            r#"{"sawtooth": "11h"}"#,
            "sawtooth_11h",
            sawtooth(11 * HOUR, grid(5 * MINUTE, 0)),
        ),
        (
            r#"{"sawtooth": "7d", "hop": "1d", "align": "6h"}"#,
            "sawtooth_7d",
            sawtooth(7 * DAY, grid(DAY, 6 * HOUR)),
        ),
        (
            r#"{"tumbling": "1w", "align": "4d"}"#,
            "tumbling_1w",
            hopping(7 * DAY, grid(7 * DAY, 4 * DAY), false),
        ),
        (
            r#"{"hopping": "1h", "every": "5m", "partial": true}"#,
            "hopping_1h",
            hopping(HOUR, grid(5 * MINUTE, 0), true),
        ),
        (
            r#"{"session": "30m"}"#,
            "session_30m",
            WindowKind::Session { gap: 30 * MINUTE },
        ),
    ];
    for (written, suffix, kind) in cases {
        let got = read(serde_json::from_str(written).expect("JSON")).expect(written);
        assert_eq!(
            (got.window, got.name),
            (Window::new(kind), format!("f_{suffix}")),
            "{written}"
        );
    }
    let all = serde_json::json!({"tumbling": "1h", "offset": "1d", "limit": 3, "as": "busy"});
    let got = read(all).expect("a window");
    assert_eq!(
        (got.window.offset, got.window.limit, got.name.as_str()),
        (DAY, Some(3), "busy")
    );
}

#[test]
fn what_makes_no_window_is_refused_and_says_why() {
    let cases = [
        (r#""0s""#, "the window has no width"),
        (r#"{}"#, "exactly one mode"),
        (r#"{"exact": "1h", "rows": 3}"#, "exactly one mode"),
        (r#"{"session": "0s"}"#, "the window has no width"),
        (
            r#"{"sawtooth": "4m"}"#,
            "`hop` is longer than the window is wide",
        ),
        (
            r#"{"sawtooth": "1h", "hop": "2h"}"#,
            "`hop` is longer than the window is wide",
        ),
        (r#"{"sawtooth": "1h", "hop": "0s"}"#, "`hop` is too short"),
        (r#"{"hopping": "1h"}"#, "needs `every`"),
        (
            r#"{"hopping": "1h", "every": "2h"}"#,
            "`every` is longer than the window is wide",
        ),
        (
            r#"{"tumbling": "1h", "align": "1h"}"#,
            "`align` passes a whole step",
        ),
        (r#"{"tumbling": "1h", "hop": "5m"}"#, "takes no `hop`"),
        (r#"{"exact": "1h", "align": "5m"}"#, "takes no `align`"),
        (
            r#"{"session": "1h", "partial": true}"#,
            "takes no `partial`",
        ),
        (r#"{"rows": 0}"#, "`rows` is 0"),
        (r#"{"rows": 3, "limit": 2}"#, "takes no `limit`"),
    ];
    for (written, why) in cases {
        let problem = read(serde_json::from_str(written).expect("JSON")).expect_err(written);
        assert!(problem.title.contains(why), "{written}: {problem}");
        assert!(!problem.hint.is_empty(), "{written}");
    }
}
