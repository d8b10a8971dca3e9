use super::*;

fn moment(after: u64, thread: &str, words: &str, registers: bool) -> Moment {
    let registers = registers.then(|| ("TPR 00 IRR {}".to_owned(), "TPR 00 IRR {42}".to_owned()));
    Moment { after, thread: thread.to_owned(), words: words.to_owned(), registers }
}

fn life() -> Life {
    Life {
        title: "interrupt 7: vector 0x42 for vCPU 0 from <MSI> & others".to_owned(),
        cause: Some("raised by d3".to_owned()),
        moments: vec![
            moment(0, "main loop", "asserted", false),
            moment(817, "main loop", "posted to vCPU 0", false),
            moment(51_744, "vcpu0", "in IRR of vCPU 0", true),
            moment(2_000_000_000, "vcpu0", "EOI", false),
        ],
        end: vec!["ended".to_owned(), "its handler has activated d9".to_owned()],
    }
}

/// Red when: text is not escaped; a step, its time or its registers are left out; steps of one thread are in different lanes.
#[test]
fn every_step_is_in_the_lane_of_its_thread_below_the_one_before() {
    let picture = draw(&[life(), life()]);
    let document = roxmltree::Document::parse(&picture).expect("well-formed");
    let of = |class: &str| {
        let class = class.to_owned();
        document.descendants().filter(move |node| node.attribute("class") == Some(&class)).collect::<Vec<_>>()
    };
    let lives = of("life");
    assert_eq!(lives.len(), 2);
    let at =
        |node: &roxmltree::Node<'_, '_>, name| node.attribute(name).expect("there").parse::<f64>().expect("a number");
    let steps: Vec<_> = lives[0].descendants().filter(|node| node.has_tag_name("circle")).collect();
    let lanes: Vec<f64> = of("lane").iter().map(|lane| at(lane, "x")).take(2).collect();
    assert_eq!(steps.iter().map(|step| at(step, "cx")).collect::<Vec<_>>(), [lanes[0], lanes[0], lanes[1], lanes[1]]);
    let heights: Vec<f64> = steps.iter().map(|step| at(step, "cy")).collect();
    assert!(heights.is_sorted_by(|a, b| a + ROW <= *b), "{heights:?}");
    let said: Vec<&str> = lives[0].descendants().filter_map(|node| node.text()).collect();
    for words in [
        "interrupt 7: vector 0x42 for vCPU 0 from <MSI> & others",
        "raised by d3",
        "in IRR of vCPU 0",
        "817 ns",
        "51.7 µs",
        "2.000 s",
        "its handler has activated d9",
    ] {
        assert!(said.contains(&words), "{words}: {said:?}");
    }
    assert!(picture.contains("after:\u{a0} TPR 00 IRR {42}"), "{picture}");
}

#[test]
fn nothing_is_drawn_outside_the_picture() {
    for lives in [vec![], vec![life()], vec![Life { moments: Vec::new(), ..life() }]] {
        let picture = draw(&lives);
        let document = roxmltree::Document::parse(&picture).expect("well-formed");
        let height: f64 = document.root_element().attribute("height").expect("there").parse().expect("a number");
        let inner = lives.iter().map(|life| bottom_of(life) + 14.0 * (life.end.len() as f64 - 1.0)).fold(0.0, f64::max);
        assert!(height > inner, "{height} {inner}");
    }
}
