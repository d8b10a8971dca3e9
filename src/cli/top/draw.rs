//! The screen: two lines about the machine, tables, a line about the keys. What there is no room for is cut.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::model::{Machine, Model, State};
use super::rates::View;
use super::tables::{COUNT, Table, columns_that_fit, pad};

#[cfg(test)]
mod tests;

/// The least that a table gets where there are several: its frame, its head, some rows.
const TABLE_HEIGHT: u16 = 8;
/// With fewer columns two tables are not side by side.
const TABLE_WIDTH: u16 = 64;
const KEYS: &str = " q quit  space pause  n/p machine  Tab 1-8 table  z zoom  \u{2190}/\u{2192} sort by  r reverse  \u{2191}/\u{2193} scroll  ^L redraw";
const BETWEEN: &str = "  ";

/// Draws it all.
pub fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let head = area.height.min(2);
    let foot = u16::from(area.height > head + TABLE_HEIGHT / 2);
    let body = Rect { y: area.y + head, height: area.height - head - foot, ..area };
    if let Some((number, machine)) = model.watched() {
        let lines = vec![about(machine, number, model), figures(machine)];
        frame.render_widget(Paragraph::new(lines), Rect { height: head, ..area });
    }
    let tables = model.tables();
    for (number, place) in places(body, model.focus, model.zoomed) {
        if let Some(table) = tables.get(number) {
            draw_table(frame, place, table, number, model);
        }
    }
    let keys = Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(keys, Rect { y: body.bottom(), height: foot, ..area });
}

/// Which machine it is.
fn about(machine: &Machine, number: usize, model: &Model) -> Line<'static> {
    let View { kernel, pid, machine: life, irqchip, uptime_ns, .. } = &machine.view;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![Span::styled(format!(" {kernel}"), bold)];
    let mut say = |text: String, style: Style| spans.extend([Span::raw(BETWEEN), Span::styled(text, style)]);
    if model.is_paused() {
        say("PAUSED".to_owned(), bold.fg(Color::Yellow));
    }
    match machine.state {
        State::Running => {}
        State::Silent => say("DOES NOT ANSWER, figures are old".to_owned(), bold.fg(Color::Yellow)),
        State::Ended => say("HAS ENDED, last figures".to_owned(), bold.fg(Color::Red)),
    }
    say(format!("process {pid}"), Style::new());
    say(format!("up {}", uptime(*uptime_ns)), Style::new());
    say(format!("irqchip {irqchip}"), Style::new());
    if *life > 1 {
        say(format!("resets {}", life - 1), Style::new());
    }
    let machines = model.machines().len();
    if machines > 1 {
        say(format!("machine {} of {machines}", number + 1), Style::new());
    }
    Line::from(spans)
}

/// What all its vCPUs do together.
fn figures(machine: &Machine) -> Line<'static> {
    let View { vcpus, seconds, ends, .. } = &machine.view;
    let sum = |of: fn(&super::rates::Vcpu) -> f64| vcpus.iter().map(of).sum::<f64>();
    let mut text = format!(
        " {:.0} interrupts/s  {:.0} NMIs/s  {:.0} kicks/s  {:.0} exits/s, over {seconds:.1} s",
        sum(|vcpu| vcpu.interrupts),
        sum(|vcpu| vcpu.nmis),
        sum(|vcpu| vcpu.kicks),
        sum(|vcpu| vcpu.exits),
    );
    if let Some(ends) = ends {
        text += &format!("  (no more is known {ends})");
    }
    Line::from(text)
}

fn uptime(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Which tables are shown, and where: as many as there is room for, among them the one in focus.
fn places(body: Rect, focus: usize, zoomed: bool) -> Vec<(usize, Rect)> {
    if body.is_empty() {
        return Vec::new();
    }
    let across = if body.width >= 2 * TABLE_WIDTH { 2 } else { 1 };
    let down = usize::from(body.height / TABLE_HEIGHT).clamp(1, COUNT.div_ceil(across));
    if zoomed || across * down == 1 {
        return vec![(focus, body)];
    }
    let first = focus / (across * down) * (across * down);
    let shown = first..COUNT.min(first + across * down);
    let rows = shown.len().div_ceil(across);
    let part = |whole: u16, n: usize, of: usize| (usize::from(whole) * n / of) as u16;
    let place = |number: usize| {
        let (row, column) = ((number - first) / across, (number - first) % across);
        let (left, right) = (part(body.width, column, across), part(body.width, column + 1, across));
        let (top, bottom) = (part(body.height, row, rows), part(body.height, row + 1, rows));
        (number, Rect::new(body.x + left, body.y + top, right - left, bottom - top))
    };
    shown.map(place).collect()
}

fn draw_table(frame: &mut Frame<'_>, place: Rect, table: &Table, number: usize, model: &Model) {
    let focused = model.focus == number;
    let style = if focused { Style::new().fg(Color::Cyan) } else { Style::new() };
    let block = Block::bordered().border_style(style).title(format!(" {} {} ", number + 1, table.title));
    let inside = block.inner(place);
    frame.render_widget(block, place);
    let order = model.order(number);
    let widths = table.widths();
    let columns = columns_that_fit(&widths, inside.width.into(), order.column);
    let gap = |column: usize| if column == 0 { "" } else { BETWEEN };
    let head = columns.iter().map(|&column| {
        let mark = match (column == order.column, order.reversed) {
            (true, false) => "\u{25be}",
            (true, true) => "\u{25b4}",
            (false, _) => "",
        };
        let text = format!("{}{mark}", table.columns[column]);
        Span::raw(format!("{}{}", gap(column), pad(&text, widths[column], column == 0)))
    });
    let head = Line::from(head.collect::<Vec<_>>()).style(Style::new().add_modifier(Modifier::BOLD));
    let rows = usize::from(inside.height.saturating_sub(1));
    // The last page is full.
    let from = model.scrolled(number).min(table.rows.len().saturating_sub(rows));
    let rows = table.rows.iter().skip(from).take(rows).map(|row| {
        let cell =
            |&column: &usize| format!("{}{}", gap(column), pad(&row[column].text(), widths[column], column == 0));
        Line::from(columns.iter().map(cell).collect::<String>())
    });
    frame.render_widget(Paragraph::new(std::iter::once(head).chain(rows).collect::<Vec<_>>()), inside);
}
