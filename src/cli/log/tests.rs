//! The JSON form.

use log::Level;

use super::*;

#[test]
fn a_json_line_is_one_line_whatever_the_message_is() {
    let message = "a \"b\"\nc";
    let line =
        json_line(&Record::builder().level(Level::Warn).target("vmm::x").args(format_args!("{message}")).build());
    assert_eq!(line.lines().count(), 1);
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&value["level"], &value["target"]), (&"WARN".into(), &"vmm::x".into()));
    assert_eq!(value["message"], message);
    assert!(value["time"].as_f64().is_some_and(|time| time > 1.6e9));
}
