//! Plain aligned columns, which `awk` and eyes both read. Cells may hold colours.

use comfy_table::{ContentArrangement, Table, presets};

use crate::term::{self, DIM, RESET};

/// Rows under a dim header. On a terminal long cells wrap; in a pipe every row is one line.
pub(crate) fn render(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match term::size() {
        Some((width, _)) => {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width.min(usize::from(u16::MAX)) as u16);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    let mut lines = text.lines().map(str::trim_end);
    let mut out = format!("{DIM}{}{RESET}", lines.next().unwrap_or_default());
    for line in lines {
        out.push('\n');
        out.push_str(line);
    }
    out
}
