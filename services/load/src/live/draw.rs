//! A picture of the model, for a terminal of any size: what matters less gives way where there is no room for everything.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Sparkline},
};

use super::model::{Curve, Model, RunStage, Sums};
use crate::report::numbers::{cell, count_cell, grouped, percent, shortened};

/// Where a field's text begins.
const NAME: usize = 11;

/// Columns of a curve's name and figures.
const CURVE_LABEL: u16 = 26;

/// The fewest rows that curves are drawn in, and the most that one of them gets.
const CURVE_ROWS_MAX: u16 = 5;

/// Parts of a response time below this share are left out.
const SHARE_MIN_PERCENT: f64 = 1.0;

/// The whole picture.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let mut page = Sheet { frame, area, row: 0 };
    page.line(title(model, area.width));
    page.line(progress(model, area.width));
    page.line(field("Load", &model.load));
    page.line(so_far(&model.sums));
    if model.stage >= RunStage::Load {
        page.line(Line::default());
        latency(&mut page, model);
        page.line(outcomes(&model.sums));
        page.line(tail(model));
    }
    nodes(&mut page, model);
    for fault in &model.faults {
        page.line(field("Fault", fault));
    }
    // A blank line, three curves of a row each, and two lines of what was printed.
    curves(&mut page, model);
    printed(&mut page, model);
}

/// The rows that are filled from the top.
struct Sheet<'a, 'b> {
    frame: &'a mut Frame<'b>,
    area: Rect,
    row: u16,
}

impl Sheet<'_, '_> {
    /// One row, as much of it as there is room for.
    fn line(&mut self, line: Line<'_>) {
        let area = self.take(1);
        if area.height > 0 {
            self.frame.render_widget(Paragraph::new(line), area);
        }
    }

    /// The next rows, fewer if there are not as many.
    fn take(&mut self, rows: u16) -> Rect {
        let rows = rows.min(self.left());
        let area = Rect { y: self.area.y + self.row, height: rows, ..self.area };
        self.row += rows;
        area
    }

    const fn left(&self) -> u16 {
        self.area.height.saturating_sub(self.row)
    }
}

fn field<'a>(name: &str, text: &str) -> Line<'a> {
    Line::from(vec![bold(format!("{name:<NAME$}")), Span::raw(text.to_owned())])
}

fn bold<'a>(text: String) -> Span<'a> {
    Span::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn title<'a>(model: &Model, width: u16) -> Line<'a> {
    let (left, right) = (format!("Mesh Bench · {}", model.title), "q ends the run");
    let gap = usize::from(width).saturating_sub(left.chars().count() + right.len());
    Line::from(vec![bold(left), Span::raw(" ".repeat(gap)), Span::raw(right)])
}

/// The stage, a bar, and the time that is left.
fn progress<'a>(model: &Model, width: u16) -> Line<'a> {
    let left =
        model.left().map_or_else(|| "time left unknown".to_owned(), |left| format!("{} left in all", words(left)));
    let stage = model.progress();
    let bar = usize::from(width).saturating_sub(stage.chars().count() + left.chars().count() + 4);
    let share = if model.total == 0 { 0.0 } else { model.done as f64 / model.total as f64 };
    let filled = ((bar as f64 * share.clamp(0.0, 1.0)).round() as usize).min(bar);
    Line::from(vec![
        Span::raw(format!("{stage}  ")),
        Span::styled("━".repeat(filled), Style::new().fg(Color::Cyan)),
        Span::raw("─".repeat(bar - filled)),
        Span::raw(format!("  {left}")),
    ])
}

/// Whole seconds.
fn words(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {:02} s", seconds / 60, seconds % 60) }
}

/// What the verdict would be about.
fn so_far<'a>(sums: &Sums) -> Line<'a> {
    let colour = |is_good: bool, other: Color| Style::new().fg(if is_good { Color::Green } else { other });
    let correct = match (sums.is_checked, sums.wrong) {
        (false, _) => Span::styled("unchecked", Style::new().fg(Color::Yellow)),
        (true, 0) => Span::styled("correct", colour(true, Color::Red)),
        (true, wrong) => Span::styled(format!("BROKEN: {} violations", grouped(wrong)), colour(false, Color::Red)),
    };
    let failed = sums.errors + sums.outcome_unknown;
    let share = percent(failed, sums.ops);
    let errors = format!("{share:.3} % failed or unknown (max {})", sums.errors_max_percent);
    let mut spans = vec![
        bold(format!("{:<NAME$}", "So far")),
        correct,
        Span::raw(" · "),
        Span::styled(errors, colour(share <= sums.errors_max_percent, Color::Red)),
    ];
    if sums.is_open_loop && sums.ops > 0 {
        let lag = format!("≤ {} ms late", cell(sums.lag_max.as_secs_f64() * 1e3));
        spans.extend([Span::raw(" · "), Span::raw(lag)]);
    }
    if sums.stale > 0 {
        spans.push(Span::raw(format!(" · {} stale", grouped(sums.stale))));
    }
    Line::from(spans)
}

/// Percentiles of the last moment, from the schedule and since the send.
fn latency(page: &mut Sheet<'_, '_>, model: &Model) {
    let names = ["count", "p50", "p95", "p99", "p99.9", "max", "service p50", "p99"].map(str::to_owned);
    page.line(Line::from(bold(table_row("Now, ms", &names))));
    let Some(now) = &model.now else { return };
    for response in &now.response {
        let service = now.service.iter().find(|service| service.op == response.op);
        let of_service =
            |of: fn(&crate::exec::OpSample) -> f64| service.map_or_else(|| "–".to_owned(), |it| cell(of(it)));
        let cells = [
            count_cell(response.count),
            cell(response.p50_ms),
            cell(response.p95_ms),
            cell(response.p99_ms),
            cell(response.p999_ms),
            cell(response.max_ms),
            of_service(|it| it.p50_ms),
            of_service(|it| it.p99_ms),
        ];
        page.line(Line::from(table_row(&format!("  {}", response.op.name()), &cells)));
    }
}

fn table_row(label: &str, cells: &[String; 8]) -> String {
    const COLUMNS: [usize; 8] = [9, 8, 8, 8, 8, 8, 12, 8];
    let cells: String = cells.iter().zip(COLUMNS).map(|(cell, width)| format!("{cell:>width$}")).collect();
    format!("{label:<NAME$}{cells}")
}

fn outcomes<'a>(sums: &Sums) -> Line<'a> {
    let answered = sums.local_hits + sums.remote_hits + sums.misses;
    let share = |count: u64, what: &str| format!("{:.1} % {what}", percent(count, answered));
    let mut parts = Vec::new();
    let gets = [(sums.local_hits, "local"), (sums.remote_hits, "remote"), (sums.misses, "miss")];
    let gets: Vec<_> = gets.iter().filter(|(count, _)| *count > 0).map(|(count, what)| share(*count, what)).collect();
    if !gets.is_empty() {
        parts.push(format!("GET {}", gets.join(", ")));
    }
    parts.push(format!("{} writes", grouped(sums.writes)));
    parts.push(format!("{} errors", grouped(sums.errors)));
    parts.push(format!("{} unknown", grouped(sums.outcome_unknown)));
    if sums.extra_tries > 0 {
        parts.push(format!("{} extra tries", grouped(sums.extra_tries)));
    }
    field("Outcomes", &parts.join(" · "))
}

fn tail<'a>(model: &Model) -> Line<'a> {
    let shares = model.tail.iter().filter(|(_, share)| *share >= SHARE_MIN_PERCENT);
    let shares: Vec<_> = shares.map(|(name, share)| format!("{name} {share:.0} %")).collect();
    field("Above p99", if shares.is_empty() { "–".to_owned() } else { shares.join(" · ") }.as_str())
}

/// As many on a line as fit.
fn nodes(page: &mut Sheet<'_, '_>, model: &Model) {
    let width = usize::from(page.area.width).saturating_sub(NAME);
    let longest = model.nodes.iter().map(|(name, state)| name.chars().count() + state.chars().count() + 3).max();
    let column = longest.unwrap_or(1).min(width.max(1));
    for (row, some) in model.nodes.chunks((width / column).max(1)).enumerate() {
        let mut spans = vec![bold(format!("{:<NAME$}", if row == 0 { "Nodes" } else { "" }))];
        for (name, state) in some {
            let name = shortened(name, column.saturating_sub(state.chars().count() + 3).max(4));
            let colour = match state.as_str() {
                "ready" => Color::Green,
                "suspect" | "not ready" | "leaving" => Color::Yellow,
                _ => Color::Red,
            };
            let gap = column.saturating_sub(name.chars().count() + state.chars().count() + 1);
            spans.push(Span::raw(format!("{name} ")));
            spans.push(Span::styled(state.clone(), Style::new().fg(colour)));
            spans.push(Span::raw(" ".repeat(gap)));
        }
        page.line(Line::from(spans));
    }
}

fn curves(page: &mut Sheet<'_, '_>, model: &Model) {
    let Some(now) = &model.now else { return };
    // Three curves of a row each, and one line of what was printed.
    if page.left() < 4 {
        return;
    }
    if page.left() > 8 {
        page.line(Line::default());
    }
    let rows = (page.left().saturating_sub(2) / 3).clamp(1, CURVE_ROWS_MAX);
    let rate = |rate: f64| grouped(rate.round() as u64);
    let ms = |ms: f64| format!("{} ms", cell(ms));
    curve(page, rows, "ops/s", (now.ops_per_s, &model.ops_per_s), rate);
    curve(page, rows, "response p99", (now.p99_ms, &model.p99_ms), ms);
    curve(page, rows, "service p99", (now.service_p99_ms, &model.service_p99_ms), ms);
}

fn curve(page: &mut Sheet<'_, '_>, rows: u16, name: &str, (now, curve): (f64, &Curve), text: impl Fn(f64) -> String) {
    let area = page.take(rows);
    let values = curve.columns(usize::from(area.width.saturating_sub(CURVE_LABEL)));
    let highest = values.iter().copied().fold(0.0, f64::max);
    let label = Rect { width: CURVE_LABEL.min(area.width), ..area };
    let mut lines = vec![Line::from(vec![bold(format!("{name:<13}")), Span::raw(text(now))])];
    if rows > 1 {
        lines.push(Line::from(format!("{:<13}{}", "  highest", text(highest))));
    }
    page.frame.render_widget(Paragraph::new(lines), label);
    // Whole numbers are all that it takes: thousandths of the highest.
    let bars: Vec<u64> = values.iter().map(|value| (value * 1000.0 / highest.max(1e-9)) as u64).collect();
    let rest = Rect { x: area.x + label.width, width: area.width - label.width, ..area };
    page.frame.render_widget(Sparkline::default().data(&bars).max(1000).style(Style::new().fg(Color::Cyan)), rest);
}

/// The last lines that were printed.
fn printed(page: &mut Sheet<'_, '_>, model: &Model) {
    let rows = usize::from(page.left());
    let lines: Vec<_> = model.lines.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()).collect();
    for line in &lines[lines.len().saturating_sub(rows)..] {
        page.line(Line::styled((*line).to_owned(), Style::new().add_modifier(Modifier::DIM)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::{
        Counter, Live, Op, OutcomeClass, Phase, Snapshot,
        exec::{Interval, IntervalMark},
        plan::settings::tests::plan_of,
    };

    fn picture(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..height).map(|y| row(y).trim_end().to_owned()).collect()
    }

    /// Ten seconds into a load with a fault, of which the last half second had an error.
    fn loaded() -> Model {
        let mut plan = plan_of(&["--rate=2000", "--duration=30s", "--keys=3000", "--seed=7"]);
        plan.targets = ["a", "b", "c"].map(|name| format!("http://{name}:8081")).to_vec();
        let mut model = Model::new(&plan);
        model.begin(RunStage::Load, 30_000);
        let live = [Live::default()];
        let mut from = IntervalMark::default();
        for tick in 1..=20_u32 {
            for at in 0..1000 {
                let ms = if at < 20 { u64::from(tick) } else { 1 };
                live[0].latency(Op::Get, OutcomeClass::Local, Duration::from_millis(ms));
                live[0].service(Op::Get, Duration::from_micros(500));
                live[0].add(Counter::Ops);
            }
            live[0].lag(Duration::from_millis(3));
            if tick == 20 {
                live[0].latency(Op::Set, OutcomeClass::Error, Duration::from_millis(9));
                live[0].add(Counter::Ops);
                live[0].add(Counter::Errors);
            }
            let to = IntervalMark { counted: Snapshot::of(&live), at: tick * Duration::from_millis(500) };
            model.passed(Interval::between(&from, &to, Phase::InFault, Vec::new()), &to.counted);
            from = to;
        }
        model.at(10_000, Duration::from_secs(10));
        model.tail = vec![("lag", 81.0), ("server queue", 18.0), ("mesh", 0.4)];
        model.set_nodes(["ready", "dead", "suspect"].map(str::to_owned).into_iter());
        model.set_faults(vec!["crash b: since 8.0 s".to_owned()]);
        model.print("[FAULT] t=8.0s crash b");
        model
    }

    #[test]
    fn a_terminal_of_24_rows_shows_all_there_is() {
        let lines = picture(&loaded(), 80, 24);
        let text = lines.join("\n");
        for part in [
            "Mesh Bench · 3 nodes · seed 7",
            "q ends the run",
            "load, 10 of 30 s  ━",
            " left in all",
            "Load       open loop, 2 000 ops/s",
            "So far     correct · 0.005 % failed or unknown (max 0.1) · ≤ 3.000 ms late",
            "  GET          1 000   1.000   1.000   20.0",
            "Outcomes   GET 100.0 % local · 0 writes · 1 errors · 0 unknown",
            "Above p99  lag 81 % · server queue 18 %",
            "Nodes      a:8081 ready    b:8081 dead     c:8081 suspect",
            "Fault      crash b: since 8.0 s",
            "ops/s        2 002",
            "response p99 20.0",
            "service p99  0.500 ms",
            "[FAULT] t=8.0s crash b",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("mesh 0 %"), "{text}");
        assert!(text.contains('█'), "a curve:\n{text}");
    }

    #[test]
    fn any_size_will_do() {
        for (width, height) in [(1, 1), (10, 3), (40, 12), (80, 24), (140, 50), (300, 90)] {
            let lines = picture(&loaded(), width, height);
            assert_eq!(lines.len(), usize::from(height));
        }
        let wide = picture(&loaded(), 140, 50).join("\n");
        assert!(wide.contains("highest"), "{wide}");
        let small = picture(&loaded(), 80, 10).join("\n");
        assert!(small.contains("So far") && !small.contains("service p99 "), "{small}");
    }

    #[test]
    fn a_prefill_and_a_sweep_show_their_keys() {
        let mut model = loaded();
        model.begin(RunStage::Sweep, 3000);
        model.at(1500, Duration::from_secs(1));
        let text = picture(&model, 80, 24).join("\n");
        assert!(text.contains("final sweep, 1 500 of 3 000 keys at 3 nodes") && text.contains("  1 s left"), "{text}");
        let mut model = Model::new(&plan_of(&["--keys=3000"]));
        model.begin(RunStage::Prefill, 3000);
        model.at(300, Duration::from_secs(1));
        let text = picture(&model, 80, 24).join("\n");
        assert!(text.contains("prefill, 300 of 3 000 keys") && !text.contains("Outcomes"), "{text}");
    }
}
