use std::sync::LazyLock;

use roxmltree::{Document, Node, ParsingOptions};

use super::*;
use crate::cli::bench::fixture;
use crate::cli::bench::results::{Host, Ratio, Row};
use crate::cli::bench::statistics::{self, Histogram};
use crate::cli::bench::units::{duration, times};

const SEED: u64 = 1;
/// Places are rounded to a hundredth of a unit; values found from them are this exact.
const EXACT: f64 = 0.002;

fn example() -> Results {
    static EXAMPLE: LazyLock<Results> = LazyLock::new(|| fixture::results(SEED, 8, 400));
    EXAMPLE.clone()
}

/// The page as a tree: it parses as XML, which is stricter than HTML.
fn parsed<T>(page: &str, look: impl FnOnce(&Document<'_>) -> T) -> T {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    look(&Document::parse_with_options(page, options).unwrap_or_else(|e| panic!("not well-formed: {e}")))
}

fn with_page<T>(results: &Results, look: impl FnOnce(&Document<'_>) -> T) -> T {
    parsed(&page(results).unwrap(), look)
}

fn has_class(node: Node<'_, '_>, class: &str) -> bool {
    node.attribute("class").is_some_and(|classes| classes.split(' ').any(|one| one == class))
}

fn all<'a, 'b>(node: Node<'a, 'b>, tag: &'a str, class: &'a str) -> impl Iterator<Item = Node<'a, 'b>> {
    node.descendants().filter(move |n| n.has_tag_name(tag) && has_class(*n, class))
}

fn by_id<'a, 'b>(document: &'a Document<'b>, id: &str) -> Node<'a, 'b> {
    let found = document.descendants().find(|node| node.attribute("id") == Some(id));
    found.unwrap_or_else(|| panic!("no {id:?} in the page"))
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants().filter(|n| n.is_text()).filter_map(|n| n.text()).collect()
}

fn number(node: Node<'_, '_>, attribute: &str) -> f64 {
    node.attribute(attribute).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {attribute} in {node:?}"))
}

fn place(mark: Node<'_, '_>) -> (f64, f64) {
    let place = mark.attribute("transform").unwrap().strip_prefix("translate(").unwrap().strip_suffix(')').unwrap();
    let (x, y) = place.split_once(' ').unwrap();
    (x.parse().unwrap(), y.parse().unwrap())
}

/// From places back to values, by what the ticks say; `straight` makes the axis linear.
struct Reader {
    from: (f64, f64),
    to: (f64, f64),
}

impl Reader {
    fn new(plot: Node<'_, '_>, axis: &str, straight: fn(f64) -> f64) -> Self {
        let ticks: Vec<(f64, f64)> = all(plot, "g", "tick")
            .filter(|tick| has_class(*tick, axis))
            .map(|tick| (straight(number(tick, "data-value")), number(tick, "data-at")))
            .collect();
        assert!(ticks.len() >= 2, "an axis of {:?} with {} ticks tells nothing", plot.attribute("id"), ticks.len());
        let reader = Self { from: ticks[0], to: ticks[ticks.len() - 1] };
        let exact = EXACT * (reader.to.0 - reader.from.0).abs().max(1.0);
        for (value, at) in ticks {
            assert!((reader.value(at) - value).abs() < exact, "tick {value} at {at} is off its axis");
        }
        reader
    }

    fn value(&self, at: f64) -> f64 {
        self.from.0 + (at - self.from.1) / (self.to.1 - self.from.1) * (self.to.0 - self.from.0)
    }
}

fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

fn plain(value: f64) -> f64 {
    value
}

#[track_caller]
fn assert_near(found: f64, wanted: f64, scale: f64) {
    assert!((found - wanted).abs() <= EXACT * scale, "{found} in the plot, {wanted} in the data");
}

fn histogram_of(row: &Row) -> Histogram {
    let rounds: Vec<_> = row.rounds.iter().map(|round| statistics::decode(&round.histogram).unwrap()).collect();
    statistics::merged(&rounds)
}

/// The rows of a table by kind, as the page numbers them.
fn kinds(results: &Results, table: Table) -> Vec<(&str, Vec<&Row>)> {
    let mut kinds: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in results.hosts[0].runs[0].rows.iter().filter(|row| row.table == table) {
        match kinds.iter_mut().find(|(kind, _)| *kind == row.kind) {
            Some((_, rows)) => rows.push(row),
            None => kinds.push((&row.kind, vec![row])),
        }
    }
    kinds
}

#[test]
fn the_page_needs_nothing_else() {
    let page = page(&example()).unwrap();
    for forbidden in ["http", "//", "url(", "@import", "<script", "<link", "<img", "javascript:"] {
        assert!(!page.contains(forbidden), "{forbidden:?} in the page");
    }
    parsed(&page, |document| {
        for node in document.descendants() {
            for attribute in node.attributes() {
                let name = attribute.name();
                assert!(
                    !["src", "srcset", "data", "action", "poster"].contains(&name) && !name.starts_with("on"),
                    "{node:?}"
                );
                assert!(name != "href" || attribute.value().starts_with('#'), "{node:?}");
            }
        }
    });
}

#[test]
fn ids_are_unique_and_what_is_referred_to_is_there() {
    let mut two = example();
    two.hosts.push(Host { runs: vec![fixture::run(3, 6, 100)], ..fixture::results(2, 6, 100).hosts.remove(0) });
    with_page(&two, |document| {
        let ids: Vec<&str> = document.descendants().filter_map(|node| node.attribute("id")).collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        let links = document.descendants().filter_map(|n| n.attribute("href")).map(|link| link.trim_start_matches('#'));
        let labels =
            document.descendants().filter_map(|n| n.attribute("aria-labelledby")).flat_map(|ids| ids.split(' '));
        let references: Vec<&str> = links.chain(labels).collect();
        assert!(references.len() > 2 * 2 * 8, "two hosts with plots of eight kinds have references");
        for reference in references {
            assert!(ids.contains(&reference), "{reference:?} is nowhere");
        }
    });
}

#[test]
fn every_plot_has_words_for_those_who_do_not_see_it() {
    with_page(&example(), |document| {
        let plots: Vec<_> = document.descendants().filter(|node| node.attribute("role") == Some("img")).collect();
        // For each table the ratios, and for each of eight kinds distribution and stages; and the timeline.
        assert_eq!(plots.len(), 2 * (1 + 8 * 2) + 1);
        for plot in plots {
            for tag in ["title", "desc"] {
                let words = plot.children().find(|node| node.has_tag_name(tag)).map(text).unwrap_or_default();
                assert!(words.len() > 20, "{tag} of {:?}: {words:?}", plot.attribute("id"));
            }
        }
        let others = document.descendants().filter(|n| n.has_tag_name("svg") && n.attribute("role").is_none());
        for sample in others {
            assert_eq!(sample.attribute("aria-hidden"), Some("true"));
        }
    });
}

#[test]
fn text_from_files_is_text_in_the_page() {
    let mut results = example();
    results.hosts[0].runs[0].rows[0].what = "</svg><script>alert(1)</script>\u{0}\u{1b}\u{ffff} & \"'".to_owned();
    results.hosts[0].runs[0].warnings.push("<img src=x onerror=alert(1)>".to_owned());
    with_page(&results, |document| {
        let elements: Vec<&str> = document.descendants().map(|node| node.tag_name().name()).collect();
        for forbidden in ["script", "img", "clock", "off", "Processor"] {
            assert!(!elements.contains(&forbidden), "{forbidden} became an element");
        }
        let all = text(document.root_element());
        for verbatim in [
            "Example <Processor> & \"Co\" 3 GHz",
            "</svg><script>alert(1)</script> & \"'",
            "<img src=x onerror=alert(1)>",
            "this QEMU has no <off> mode for it",
            "tophalf bench --json 'a b.json'",
        ] {
            assert!(all.contains(verbatim), "{verbatim:?} is lost");
        }
    });
}

#[test]
fn lines_of_distributions_are_the_quantiles_of_the_data() {
    let results = example();
    with_page(&results, |document| {
        for (table, name) in [Table::Best, Table::SameCpuid].into_iter().zip(["s0t0", "s0t1"]) {
            for (index, (kind, rows)) in kinds(&results, table).into_iter().enumerate() {
                let plot = by_id(document, &format!("{name}k{index}d"));
                assert!(plot.children().next().map(text).unwrap().contains(kind));
                let (x, y) = (Reader::new(plot, "x", nines), Reader::new(plot, "y", f64::log10));
                let rows: Vec<_> = rows.into_iter().filter(|row| !row.rounds.is_empty()).collect();
                assert_eq!(all(plot, "path", "distribution").count(), rows.len());
                for row in rows {
                    let data = histogram_of(row);
                    let line = all(plot, "path", "distribution").find(|p| p.attribute("data-mode") == Some(&row.mode));
                    let path = line.unwrap().attribute("d").unwrap();
                    let points: Vec<_> = path[1..].split('L').map(|point| point.split_once(' ').unwrap()).collect();
                    assert!(points.len() > 100, "{} points", points.len());
                    for (px, py) in points {
                        let nines = x.value(px.parse().unwrap());
                        // Near a step a rounded place may be on either side of it.
                        let quantile = |nines: f64| data.value_at_quantile(1.0 - 10f64.powf(-nines.max(0.0))) as f64;
                        let (low, high) =
                            (quantile(nines - EXACT * 2.0).log10(), quantile(nines + EXACT * 2.0).log10());
                        let found = y.value(py.parse().unwrap());
                        assert!(
                            (low - EXACT..=high + EXACT).contains(&found),
                            "{kind} {} at {nines}: {found}, {low} to {high}",
                            row.mode
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn marks_of_distributions_are_the_percentiles() {
    let results = example();
    with_page(&results, |document| {
        for (index, (_, rows)) in kinds(&results, Table::Best).into_iter().enumerate() {
            let plot = by_id(document, &format!("s0t0k{index}d"));
            let y = Reader::new(plot, "y", f64::log10);
            let marks: Vec<_> = all(plot, "path", "mark").map(|mark| (text(mark), y.value(place(mark).1))).collect();
            for row in rows.into_iter().filter(|row| !row.rounds.is_empty()) {
                for (name, value) in [("p50", row.summary.p50), ("p90", row.summary.p90), ("p99", row.summary.p99)] {
                    let words = format!("{} {name}: {}", row.mode, duration(value as f64, "µ"));
                    let (_, found) =
                        marks.iter().find(|(says, _)| *says == words).unwrap_or_else(|| panic!("no mark {words:?}"));
                    assert_near(*found, (value as f64).log10(), 1.0);
                }
            }
        }
    });
}

#[test]
fn dots_and_whiskers_are_the_ratios() {
    let results = example();
    with_page(&results, |document| {
        let plot = by_id(document, "s0t0r");
        let panels: Vec<_> = all(plot, "g", "panel").collect();
        assert_eq!(panels.len(), 2);
        // The fixture computed them with the run's seed, so they are the same to the last bit.
        let rows = kinds(&results, Table::Best).into_iter().flat_map(|(_, mut rows)| {
            rows.sort_by_key(|row| view::MODES.iter().position(|mode| *mode == row.mode));
            rows
        });
        let ratios: Vec<_> = rows.filter_map(|row| row.ratio).collect();
        for (panel, of) in panels.into_iter().zip([|r: &Ratio| r.p50, |r: &Ratio| r.p99]) {
            let x = Reader::new(panel, "x", f64::log10);
            let (marks, whiskers): (Vec<_>, Vec<_>) =
                (all(panel, "path", "mark").collect(), all(panel, "path", "whisker").collect());
            assert_eq!((marks.len(), whiskers.len()), (ratios.len(), ratios.len()));
            for ((mark, whisker), ratio) in marks.into_iter().zip(whiskers).zip(&ratios) {
                let wanted = of(ratio);
                assert_near(x.value(place(mark).0), wanted.estimate.log10(), 1.0);
                let (start, to) = whisker.attribute("d").unwrap()[1..].split_once('H').unwrap();
                let (from, y) = start.split_once(' ').unwrap();
                assert_near(x.value(from.parse().unwrap()), wanted.low.log10(), 1.0);
                assert_near(x.value(to.parse().unwrap()), wanted.high.log10(), 1.0);
                assert_near(place(mark).1, y.parse().unwrap(), 10.0);
                assert!(text(mark).contains(&times(wanted.estimate)), "{}", text(mark));
            }
        }
    });
}

#[test]
fn bars_are_as_long_as_the_stages() {
    let results = example();
    with_page(&results, |document| {
        for (index, (kind, rows)) in kinds(&results, Table::Best).into_iter().enumerate() {
            let plot = by_id(document, &format!("s0t0k{index}s"));
            let x = Reader::new(plot, "x", plain);
            let bars: Vec<_> = all(plot, "rect", "stage").collect();
            let mut stages = 0;
            for row in rows {
                let mut from = 0.0;
                for stage in &row.stages {
                    let bar = bars.iter().find(|bar| {
                        bar.attribute("data-mode") == Some(&row.mode)
                            && bar.attribute("data-stage") == Some(&stage.name)
                    });
                    let bar = *bar.unwrap_or_else(|| panic!("no bar of {kind}, {}, {}", row.mode, stage.name));
                    let (left, width) = (number(bar, "x"), number(bar, "width"));
                    let scale = row.summary.p50 as f64;
                    assert_near(x.value(left), from, scale);
                    from += stage.summary.p50 as f64;
                    assert_near(x.value(left + width), from, scale);
                    stages += 1;
                }
            }
            assert_eq!(stages, bars.len());
            assert!(stages > 0, "the example has stages of {kind}");
        }
    });
}

#[test]
fn the_timeline_has_each_outlier_where_it_was() {
    let results = example();
    with_page(&results, |document| {
        let plot = by_id(document, "s0o0");
        let (x, y) = (Reader::new(plot, "x", plain), Reader::new(plot, "y", f64::log10));
        let found: Vec<_> = all(plot, "path", "mark").map(|mark| (place(mark), text(mark))).collect();
        let rows = &results.hosts[0].runs[0].rows;
        let wanted: Vec<_> =
            rows.iter().flat_map(|row| row.outliers.iter().map(move |outlier| (row, outlier))).collect();
        assert!(wanted.len() > 50, "{} outliers", wanted.len());
        assert_eq!(found.len(), wanted.len());
        for (((px, py), says), (row, outlier)) in found.iter().zip(&wanted) {
            assert_near(x.value(*px), outlier.at_ns as f64 / 1e9, 1.0);
            assert_near(y.value(*py), (outlier.latency_ns as f64).log10(), 1.0);
            assert!(says.starts_with(&format!("{} {}: ", row.mode, row.kind)), "{says}");
        }
    });
}

#[test]
fn the_tables_have_each_row() {
    let results = example();
    with_page(&results, |document| {
        for (table, name) in [Table::Best, Table::SameCpuid].into_iter().zip(["s0t0", "s0t1"]) {
            let lines: Vec<_> = by_id(document, name).descendants().filter(|n| n.has_tag_name("tbody")).collect();
            for ((kind, rows), body) in kinds(&results, table).into_iter().zip(lines) {
                assert!(text(body).starts_with(kind));
                for row in rows {
                    let line =
                        body.children().find(|tr| all(*tr, "th", "mode").any(|th| text(th) == row.mode)).unwrap();
                    let cells: Vec<String> = line.children().filter(|n| n.has_tag_name("td")).map(text).collect();
                    if let Some(why) = &row.missing {
                        assert_eq!(cells, [format!("not measured: {why}")]);
                        continue;
                    }
                    let s = row.summary;
                    assert_eq!(cells[0], s.count.to_string());
                    assert_eq!(
                        cells[1..7],
                        [s.min, s.p50, s.p90, s.p99, s.p999, s.max].map(|v| duration(v as f64, "µ"))
                    );
                    match row.ratio {
                        Some(ratio) => {
                            assert!(cells[7].starts_with(&format!("{}×", times(ratio.p50.estimate))), "{}", cells[7])
                        }
                        None => assert_eq!(cells[7], "1"),
                    }
                }
            }
        }
    });
}

#[test]
fn runs_of_one_setting_are_added_up() {
    let mut results = example();
    results.hosts[0].runs.push(fixture::run(7, 5, 300));
    with_page(&results, |document| {
        let first = by_id(document, "s0t0").descendants().find(|n| n.has_tag_name("td")).map(text);
        assert_eq!(first.as_deref(), Some((8 * 400 + 5 * 300).to_string().as_str()));
        assert_eq!(all(document.root_element(), "section", "setting").count(), 1);
        by_id(document, "s0o1");
    });
    results.hosts[0].runs[1].cpus = 4;
    with_page(&results, |document| assert_eq!(all(document.root_element(), "section", "setting").count(), 2));
}

/// Whatever a file lacks, the page is whole.
#[test]
fn little_is_no_trouble() {
    let empty = Results { hosts: Vec::new(), ..example() };
    with_page(&empty, |document| assert!(text(document.root_element()).contains("There is no run")));
    let mut bare = fixture::results(SEED, 1, 1);
    let run = &mut bare.hosts[0].runs[0];
    for row in &mut run.rows {
        (row.stages, row.outliers, row.ratio, row.per_interrupt) = (Vec::new(), Vec::new(), None, None);
    }
    run.rows[1].mode = "future".to_owned();
    let mut zero = statistics::histogram();
    zero.record(0).unwrap();
    run.rows[2].rounds[0].histogram = statistics::encode(&zero);
    for row in run.rows.iter_mut().filter(|row| row.kind == "msi") {
        row.rounds.clear();
    }
    let page = page(&bare).unwrap();
    assert!(!page.contains("NaN") && !page.contains("inf"), "a number that is none");
    parsed(&page, |document| assert!(text(document.root_element()).contains("No mode has samples of this.")));
}

#[test]
fn a_page_and_its_pictures_are_in_the_folder_and_one_that_cannot_be_made_is_the_users_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = write(&file, &example()).unwrap_err();
    assert_eq!(error.exit_code(), vmm::exit_code::USAGE);
    assert!(error.to_string().contains("file") && error.to_string().contains("give another folder"), "{error}");
    let deep = folder.path().join("a/b");
    write(&deep, &example()).unwrap();
    assert!(deep.join("index.html").metadata().unwrap().len() > 10_000);
    let picture = std::fs::read_to_string(deep.join("ratios.svg")).unwrap();
    let document = Document::parse(&picture).unwrap();
    let marks =
        document.descendants().filter(|node| node.attribute("class").is_some_and(|class| class.starts_with("mark ")));
    let results = example();
    let rows = results.hosts[0].runs[0].rows.iter();
    let rated = rows.filter(|row| row.table == Table::Best && row.ratio.is_some()).count();
    assert!(document.root_element().tag_name().namespace().is_some(), "an image viewer asks for it");
    assert_eq!(marks.count(), 2 * rated, "p50 and p99 of each ratio");
}

#[test]
fn dates_and_commands_are_as_people_write_them() {
    for (seconds, date) in [
        (0, "1970-01-01 00:00 UTC"),
        (951_782_399, "2000-02-28 23:59 UTC"),
        (951_782_400, "2000-02-29 00:00 UTC"),
        (1_764_354_896, "2025-11-28 18:34 UTC"),
        (4_107_542_400, "2100-03-01 00:00 UTC"),
    ] {
        assert_eq!(utc(seconds), date);
    }
    assert_eq!(shell(&["a".into(), "".into(), "b c".into(), "it's".into()]), r"a '' 'b c' 'it'\''s'");
}
