//! The ends of the machine.

use x86::agent::Op;
use x86::platform::DEBUG_EXIT;
use x86_64::instructions::{hlt, interrupts, port::Port};

use crate::{agent, console, log};

/// Ends the machine through the debug exit port with `code`; stops this CPU where there is none.
pub fn exit(code: u8) -> ! {
    // SAFETY: the port ends the machine, or nothing listens.
    unsafe { Port::<u8>::new(DEBUG_EXIT).write(code) };
    // With IF clear and HLT a machine monitor can tell that nothing will happen any more.
    interrupts::disable();
    loop {
        hlt();
    }
}

/// Gives up: says why, to the agent as the kernel's panic, and ends the machine with code 1.
pub fn die(why: &str) -> ! {
    interrupts::disable();
    if agent::is_present() {
        agent::text(Op::Panic, why);
    }
    console::serial(why);
    exit(1)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    log!("kernel panic: {info}");
    die("kernel panic")
}

/// Precompiled parts of the library name it; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    die("unwinding")
}
