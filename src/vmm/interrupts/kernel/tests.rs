use super::*;

fn routes(gsi: u32) -> Vec<Route> {
    wiring().filter(|(of, _)| *of == gsi).map(|(_, route)| route).collect()
}

#[test]
fn the_timer_comes_in_at_pin_2_and_at_the_masters_input_0() {
    assert_eq!(routes(2), [Route::PicMaster(0), Route::IoApic(2)]);
}

#[test]
fn the_other_isa_lines_go_to_the_input_of_their_number_in_both_chips() {
    assert_eq!(routes(4), [Route::PicMaster(4), Route::IoApic(4)]);
    assert_eq!(routes(8), [Route::PicSlave(0), Route::IoApic(8)]);
    assert_eq!(routes(15), [Route::PicSlave(7), Route::IoApic(15)]);
}

#[test]
fn lines_above_go_to_the_io_apic_alone_and_pin_0_is_nobodys() {
    assert_eq!(routes(16), [Route::IoApic(16)]);
    assert_eq!(routes(23), [Route::IoApic(23)]);
    assert_eq!(routes(0), []);
    assert_eq!(routes(24), []);
}
