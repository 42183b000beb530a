package dev.tidemark.ffm.kvm;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * Brings a vCPU thread out of {@code KVM_RUN} from another thread.
 *
 * <p>The thread blocks one real-time signal, and {@code KVM_SET_SIGNAL_MASK} opens it inside {@code
 * KVM_RUN} only: there it ends the call with EINTR and stays pending, blocked again, until {@link
 * #consume()} takes it. No signal handler ever runs. {@code immediate_exit} covers the time before
 * entry.
 *
 * <p>The vCPU thread's loop: {@code run()}; when that is {@link KvmVcpu#INTERRUPTED}, {@code
 * consume()}, and only then look at whatever flag the kicking thread had set before its kick. So no
 * kick is lost.
 *
 * <p>Threading: {@link #kick()} from any thread; everything else on the vCPU's thread, which must
 * call {@link #close()} before it ends. Cost: one signal for any number of kicks between two
 * consumes; no allocation.
 */
public final class KvmKick implements AutoCloseable {
  /**
   * The signal. The JVM uses 62 for threads blocked in I/O, the C library 32 to 34; debuggers and
   * profilers use none from here on.
   */
  public static final int SIGNAL = 50;

  private static final int SIG_BLOCK = 0;
  private static final int SIG_SETMASK = 2;
  private static final long SIGSET_BYTES = 128;
  private static final long TIMESPEC_BYTES = 16;

  private final KvmVcpu vcpu;
  private final Thread thread = Thread.currentThread();
  private final int process = Libc.getpid();
  private final int threadId = Libc.gettid();
  private final MemorySegment signals;
  private final MemorySegment oldMask;
  private final MemorySegment noTime;

  /** Guarded by this, as are all changes of {@code immediate_exit} made here. */
  private boolean pending;

  private boolean closed;

  private KvmKick(KvmVcpu vcpu) {
    this.vcpu = vcpu;
    Arena arena = Arena.ofAuto();
    signals = arena.allocate(SIGSET_BYTES, 8);
    signals.set(JAVA_LONG, 0, 1L << (SIGNAL - 1));
    oldMask = arena.allocate(SIGSET_BYTES, 8);
    noTime = arena.allocate(TIMESPEC_BYTES, 8);
  }

  /**
   * Makes a vCPU that this thread will run kickable.
   *
   * @throws IllegalStateException on a virtual thread: signals reach only its carrier
   * @throws LinuxException if the kernel refuses
   */
  public static KvmKick onThisThread(KvmVcpu vcpu) {
    if (Thread.currentThread().isVirtual()) {
      throw new IllegalStateException("a vCPU needs a platform thread");
    }
    KvmKick kick = new KvmKick(vcpu);
    Libc.check(
        Libc.pthreadSigmask(SIG_BLOCK, kick.signals, kick.oldMask), "pthread_sigmask(SIG_BLOCK)");
    try {
      vcpu.setSignalMask(kick.oldMask.get(JAVA_LONG, 0) & ~kick.signals.get(JAVA_LONG, 0));
    } catch (RuntimeException e) {
      kick.restoreMask();
      throw e;
    }
    return kick;
  }

  /**
   * Ends the {@code KVM_RUN} that is under way, or else the next one, with {@link
   * KvmVcpu#INTERRUPTED}. Does nothing when closed.
   *
   * @throws LinuxException if the signal cannot be sent
   */
  public synchronized void kick() {
    // A thread that ended without close has no id any more; its number may be another thread's.
    if (closed || pending || !thread.isAlive()) {
      return;
    }
    vcpu.setImmediateExit(true);
    Libc.check(
        Libc.tgkill(process, threadId, SIGNAL), "tgkill(vCPU thread " + thread.getName() + ")");
    pending = true;
  }

  /**
   * Takes back the effects of kicks so far, so that the next {@code KVM_RUN} runs.
   *
   * @throws IllegalStateException on another thread than the vCPU's
   */
  public synchronized void consume() {
    if (Thread.currentThread() != thread) {
      throw new IllegalStateException("only " + thread.getName() + " can take its signals");
    }
    if (!pending) {
      return;
    }
    vcpu.setImmediateExit(false);
    takeSignal();
    pending = false;
  }

  private void takeSignal() {
    int result;
    do {
      result = Libc.sigtimedwait(signals, MemorySegment.NULL, noTime);
    } while (result == -Errno.EINTR);
    if (result != -Errno.EAGAIN) {
      Libc.check(result, "sigtimedwait");
    }
  }

  private void restoreMask() {
    Libc.check(
        Libc.pthreadSigmask(SIG_SETMASK, oldMask, MemorySegment.NULL),
        "pthread_sigmask(SIG_SETMASK)");
  }

  /** Makes kicks do nothing and gives the thread its signal mask back; on the vCPU's thread. */
  @Override
  public synchronized void close() {
    if (closed) {
      return;
    }
    if (Thread.currentThread() != thread) {
      throw new IllegalStateException("only " + thread.getName() + " can unblock its signal");
    }
    closed = true;
    if (pending) {
      // Unblocked with the signal pending, the thread would take its default action: the process
      // ends.
      takeSignal();
      pending = false;
    }
    restoreMask();
  }
}
