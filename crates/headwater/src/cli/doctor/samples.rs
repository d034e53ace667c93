//! The samples of a page of metrics: OpenMetrics text, as a server or an engine in this process gives it.

/// Bytes of a page that are read.
pub const PAGE_BYTES_MAX: u64 = 64 << 20;

/// What a page of metrics says.
#[derive(Debug, Default)]
pub struct Samples(Vec<Sample>);

#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Samples {
    /// Reads a page. Lines that aren't samples are passed over: another version may have more.
    pub fn read(page: &str) -> Self {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(Sample::read).collect())
    }

    /// The sample that has no labels.
    pub fn value(&self, name: &str) -> Option<f64> {
        let found = self
            .0
            .iter()
            .find(|s| s.name == name && s.labels.is_empty());
        found.map(|s| s.value)
    }

    /// The value by the value of one label; the sum where others tell more of them.
    pub fn by(&self, name: &str, label: &str) -> Vec<(&str, f64)> {
        let mut found: Vec<(&str, f64)> = Vec::new();
        for sample in self.0.iter().filter(|s| s.name == name) {
            let Some(of) = sample.label(label) else {
                continue;
            };
            match found.iter_mut().find(|(known, _)| *known == of) {
                Some((_, sum)) => *sum += sample.value,
                None => found.push((of, sample.value)),
            }
        }
        found
    }

    /// The sum over the samples whose label has this value.
    pub fn sum_of(&self, name: &str, label: &str, value: &str) -> f64 {
        let of = self.by(name, label).into_iter();
        of.filter(|(of, _)| *of == value).map(|(_, sum)| sum).sum()
    }
}

impl Sample {
    fn read(line: &str) -> Option<Self> {
        let name_ends = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(name_ends);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, quoted) = rest.split_once("=\"")?;
                let (value, after) = unquote(quoted)?;
                labels.push((label.to_owned(), value));
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        Some(Self {
            name: name.to_owned(),
            labels,
            value: rest.split_whitespace().next()?.parse().ok()?,
        })
    }

    fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| label == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Text up to the closing quote, and what comes after it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => text.push('\n'),
                escaped => text.push(escaped),
            },
            plain => text.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_with_its_labels_and_without_what_it_isnt() {
        let page = "# HELP headwater_a A.\nheadwater_a 1.5\nheadwater_b_total{call=\"x\\\"}\\\\\",outcome=\"ok\"} 2\n\
            headwater_b_total{call=\"y\",outcome=\"ok\"} 3\nheadwater_b_total{call=\"y\",outcome=\"server_error\"} 4\n\
            broken{a=\"b 1\nheadwater_c{le=\"+Inf\"} seven\n\n# EOF\n";
        let samples = Samples::read(page);
        assert_eq!(samples.value("headwater_a"), Some(1.5));
        assert_eq!(samples.value("headwater_b_total"), None);
        assert_eq!(
            samples.by("headwater_b_total", "call"),
            [("x\"}\\", 2.0), ("y", 7.0)]
        );
        assert_eq!(samples.sum_of("headwater_b_total", "outcome", "ok"), 5.0);
        assert!(samples.by("headwater_c", "le").is_empty());
    }
}
