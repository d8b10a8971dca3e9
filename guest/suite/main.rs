//! Tests of interrupt handling, each a record in the image. The kernel runs those that its command line asks for. The measurements of
//! `tophalf bench` are in `measure`, with records of their own.

#![no_std]
#![no_main]

extern crate alloc;

mod agent;
mod apic;
mod apic_timer;
mod balance;
mod boot;
mod conservation;
mod eoi;
mod exceptions;
mod idt;
mod ioapic;
mod ipi;
mod irq;
mod irq_thread;
mod measure;
mod nmi;
mod order;
mod page_faults;
mod pic;
mod races;
mod ring3;
mod sched;
mod softirq;
mod stacks;
mod storm;
mod task_priority;
mod time;
mod timer;
mod user;
mod watchdog;
mod work;
