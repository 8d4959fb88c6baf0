//! Getting a vCPU thread out of `KVM_RUN`, whatever it is doing there.
//!
//! A signal interrupts `KVM_RUN` (even where it waits for a page fault to be served), but a signal that comes
//! just before the call would be lost. So its handler also sets `kvm_run.immediate_exit` of the vCPU its
//! thread is at, and the thread clears that *before* it looks whether it may run:
//!
//! ```text
//!   vCPU thread                                  other thread
//!     clear immediate_exit                         close the gate
//!     gate closed? wait                            signal  ->  handler: set immediate_exit
//!     KVM_RUN    EINTR at once if it is set
//! ```
//!
//! A signal before the clearing finds the gate closed afterwards; a signal after it makes `KVM_RUN` return.

use std::{
    io,
    marker::PhantomData,
    mem, ptr,
    sync::{
        OnceLock,
        atomic::{AtomicPtr, AtomicU8, Ordering},
    },
};

use kvm_ioctls::VcpuFd;

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs, or null. Constant initialisation and no
    /// destructor: reading it in a signal handler is a plain load.
    static IMMEDIATE_EXIT: AtomicPtr<u8> = const { AtomicPtr::new(ptr::null_mut()) };
}

extern "C" fn on_kick(_signal: libc::c_int) {
    set_immediate_exit(1);
}

fn set_immediate_exit(value: u8) {
    // Relaxed: only this thread and its own signal handler are at it.
    let flag = IMMEDIATE_EXIT.with(|flag| flag.load(Ordering::Relaxed));
    if !flag.is_null() {
        // SAFETY: not null means that an `ImmediateExit` of this thread holds the vCPU, whose `kvm_run` is
        // mapped.
        let flag = unsafe { AtomicU8::from_ptr(flag) };
        flag.store(value, Ordering::Relaxed);
    }
}

/// A vCPU at its thread: while this lives, a kick of the thread ends `KVM_RUN`.
pub struct Kickable {
    vcpu: VcpuFd,
    /// Not to be sent to another thread.
    thread: PhantomData<*mut ()>,
}

impl Kickable {
    /// Binds `vcpu` to the calling thread, and holds it so that it cannot go away.
    pub fn new(mut vcpu: VcpuFd) -> Self {
        let flag = &raw mut vcpu.get_kvm_run().immediate_exit;
        IMMEDIATE_EXIT.with(|current| current.store(flag, Ordering::Relaxed));
        Self { vcpu, thread: PhantomData }
    }

    /// Forgets kicks so far. To be called before looking for what a kick may have been about.
    pub fn clear(&self) {
        set_immediate_exit(0);
    }

    /// The vCPU.
    pub fn vcpu(&mut self) -> &mut VcpuFd {
        &mut self.vcpu
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.with(|current| current.store(ptr::null_mut(), Ordering::Relaxed));
    }
}

/// Installs the handler, once a process. Without SA_RESTART: system calls return EINTR.
pub fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<i32> = OnceLock::new();
    let errno = *INSTALLED.get_or_init(|| {
        // SAFETY: all-zero is a valid `sigaction`: no flags, empty mask, default handler.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_kick as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: `action` is initialised; the handler does only an atomic load and store; nobody else uses
        // this signal.
        let result = unsafe { libc::sigaction(libc::SIGRTMIN(), &action, ptr::null_mut()) };
        if result == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL) }
    });
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// The calling thread's id, as `/proc` and userfaultfd have it.
pub fn thread_id() -> i32 {
    // SAFETY: no argument, cannot fail.
    unsafe { libc::gettid() }
}

/// Kicks thread `tid` of this process; a thread that is gone needs no kick.
pub fn kick(tid: i32) {
    // SAFETY: no argument, cannot fail.
    let process = unsafe { libc::getpid() };
    // SAFETY: reaches threads of this process alone, where `install` has set a handler that harms nobody.
    unsafe { libc::syscall(libc::SYS_tgkill, process, tid, libc::SIGRTMIN()) };
}
