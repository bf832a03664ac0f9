//! A table for a terminal or a pipe: columns as wide as what is in them, the last cut to the width.

/// On which side of a column its text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows below a head.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: Vec<(String, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(head: impl IntoIterator<Item = (impl Into<String>, Side)>) -> Table {
        let head = head.into_iter().map(|(name, side)| (name.into(), side)).collect();
        Table { head, rows: Vec::new() }
    }

    /// Adds a row; cells that are missing are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How wide its lines are, in characters.
    pub fn width(&self) -> usize {
        let drawn = self.draw(usize::MAX, str::to_owned, |_, line| line.to_owned());
        drawn.lines().map(|line| line.chars().count()).max().unwrap_or(0)
    }

    /// Draws it. Columns without any text are left out; lines are cut to `width` characters.
    /// `head` and `line` may paint a line, the latter by the row's number.
    pub fn draw(
        &self,
        width: usize,
        head: impl Fn(&str) -> String,
        line: impl Fn(usize, &str) -> String,
    ) -> String {
        let cell = |row: &[String], i: usize| row.get(i).cloned().unwrap_or_default();
        let used: Vec<usize> = (0..self.head.len())
            .filter(|&i| self.rows.iter().any(|row| !cell(row, i).is_empty()))
            .collect();
        let longest = |i: usize| {
            let rows = self.rows.iter().map(|row| cell(row, i).chars().count());
            rows.chain([self.head[i].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = used.iter().map(|&i| longest(i)).collect();
        let draw = |text: &dyn Fn(usize) -> String| {
            let mut out = String::new();
            for (&i, &wide) in used.iter().zip(&widths) {
                let text = text(i);
                let space = " ".repeat(wide.saturating_sub(text.chars().count()));
                out.push_str(&match self.head[i].1 {
                    Side::Left => format!("{text}{space}  "),
                    Side::Right => format!("{space}{text}  "),
                });
            }
            cut(out.trim_end(), width)
        };
        let mut out = head(&draw(&|i| self.head[i].0.clone()));
        out.push('\n');
        for (n, row) in self.rows.iter().enumerate() {
            out.push_str(&line(n, &draw(&|i| cell(row, i))));
            out.push('\n');
        }
        out
    }
}

/// The text, cut to a width in characters.
pub fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => {
            let end = text.char_indices().nth(width.saturating_sub(1)).map_or(0, |(end, _)| end);
            format!("{}…", text[..end].trim_end())
        }
    }
}

/// A number for people: six digits at most that count, without zeros at the end.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let size = value.abs();
    if value == 0.0 {
        return "0".into();
    }
    if !(1e-4..1e9).contains(&size) {
        let text = format!("{value:.4e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'));
    }
    let places = (5 - size.log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shown: Vec<String> =
            [0.0, 1.0, -0.25, 1234.5678, 3_500_000.0, 1e-5, 0.00123456789, f64::NAN, 1e12, 100.0]
                .map(number)
                .to_vec();
        let wanted =
            ["0", "1", "-0.25", "1234.57", "3500000", "1e-5", "0.00123457", "NaN", "1e12", "100"];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn columns_fit_and_lines_are_cut() {
        let mut table = Table::new([("name", Side::Left), ("n", Side::Right), ("x", Side::Left)]);
        table.row(["a", "10"]);
        table.row(["long one", "7"]);
        let plain = |text: &str| text.to_owned();
        assert_eq!(
            table.draw(80, plain, |_, l| l.into()),
            "name       n\na         10\nlong one   7\n"
        );
        assert_eq!(table.draw(6, plain, |_, l| l.into()), "name…\na…\nlong…\n");
    }
}
