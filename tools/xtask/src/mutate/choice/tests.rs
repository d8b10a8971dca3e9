use std::collections::HashSet;

use super::{Fault, choose, matches, parse, select};

fn faults(count: usize) -> Vec<Fault> {
    let fault = |n| Fault { name: format!("Fault{n}"), what: "Something.".to_owned(), first: vec!["a.*".to_owned()] };
    (0..count).map(fault).collect()
}

fn names(faults: &[Fault]) -> Vec<&str> {
    faults.iter().map(|fault| fault.name.as_str()).collect()
}

#[test]
fn a_list_is_read_and_anything_else_is_not() {
    let list = parse(r#"[{"name":"A","what":"Wrong.","first":["a.b","c.*"]},{"name":"B","what":"Bad.","first":[]}]"#);
    let list = list.expect("a list");
    assert_eq!(names(&list), ["A", "B"]);
    assert_eq!((list[0].what.as_str(), &list[0].first[..]), ("Wrong.", &["a.b".to_owned(), "c.*".to_owned()][..]));
    for bad in ["", "[]", "{}", r#"[{"name":"A"}]"#, r#"[{"name":"A","what":"x","first":[1]}]"#] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn every_seed_chooses_as_many_and_seeds_in_turn_choose_all() {
    for count in [1, 5, 6, 7, 36, 41, 74] {
        let all = faults(count);
        let stride = count.div_ceil(6) as u64;
        let mut seen = HashSet::new();
        for seed in 1000..1000 + stride {
            let chosen = choose(&all, 6, seed);
            let distinct: HashSet<_> = names(&chosen).into_iter().map(str::to_owned).collect();
            assert_eq!(distinct.len(), count.min(6), "{count} faults, seed {seed}: {:?}", names(&chosen));
            assert_eq!(chosen, choose(&all, 6, seed), "seed {seed}");
            seen.extend(distinct);
        }
        assert_eq!(seen.len(), count, "{count} faults in {stride} days");
    }
    assert!(choose(&[], 6, 3).is_empty());
}

#[test]
fn six_are_spread_over_the_list() {
    assert_eq!(names(&choose(&faults(60), 6, 23)), ["Fault3", "Fault13", "Fault23", "Fault33", "Fault43", "Fault53"]);
}

#[test]
fn patterns_choose_by_name() {
    let all = faults(12);
    let patterns = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(select(&all, &patterns(&["*1", "fault10"])).map(|chosen| chosen.len()), Ok(3));
    let error = select(&all, &patterns(&["Fault1", "none*"])).expect_err("nothing is called so");
    assert!(error.contains("none*"), "{error}");
    assert!(matches("a*c*", "abcd") && matches("*", "") && !matches("a*c", "abcd") && !matches("abc", "ab"));
}
