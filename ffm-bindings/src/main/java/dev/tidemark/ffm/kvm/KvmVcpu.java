package dev.tidemark.ffm.kvm;

import static dev.tidemark.ffm.kvm.KvmLayouts.KVM_RUN;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;
import static java.lang.foreign.ValueLayout.JAVA_SHORT_UNALIGNED;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * A vCPU and its {@code struct kvm_run}.
 *
 * <p>Threading: one platform thread runs it and reads its exits; {@link #setImmediateExit} is for
 * any thread. A close while it runs takes effect when it comes out. Cost: {@link #run} and the
 * accessors allocate nothing.
 */
public final class KvmVcpu implements AutoCloseable {
  /** What {@link #run} returns when a signal or {@code immediate_exit} ended it (EINTR). */
  public static final int INTERRUPTED = -Errno.EINTR;

  /** What {@link #run} returns when the vCPU is not ready to run (EAGAIN). */
  public static final int TRY_AGAIN = -Errno.EAGAIN;

  private static final VarHandle BYTE = JAVA_BYTE.varHandle().withInvokeExactBehavior();

  private static final long IMMEDIATE_EXIT = KvmLayouts.offset(KVM_RUN, "immediate_exit");
  private static final long EXIT_REASON = KvmLayouts.offset(KVM_RUN, "exit_reason");
  private static final long IO_DIRECTION = KvmLayouts.offset(KVM_RUN, "io", "direction");
  private static final long IO_SIZE = KvmLayouts.offset(KVM_RUN, "io", "size");
  private static final long IO_PORT = KvmLayouts.offset(KVM_RUN, "io", "port");
  private static final long IO_COUNT = KvmLayouts.offset(KVM_RUN, "io", "count");
  private static final long IO_DATA_OFFSET = KvmLayouts.offset(KVM_RUN, "io", "data_offset");

  private final Fd fd;
  private final Arena arena = Arena.ofShared();
  private final AtomicBoolean closed = new AtomicBoolean();
  private final MemorySegment run;

  /** Guarded by this: the ring that was mapped last, or null. */
  private KvmDirtyRing ring;

  /** Where the first mapping of the ring begins. */
  private final long ringStart;

  /**
   * @param ringStart 0 for a vCPU that is new, -1 for one whose ring others may have harvested
   */
  KvmVcpu(Fd fd, long runBytes, long ringStart) {
    this.fd = fd;
    this.ringStart = ringStart;
    try {
      if (runBytes < KVM_RUN.byteSize()) {
        throw new IllegalArgumentException(
            runBytes + " bytes for struct kvm_run, which has " + KVM_RUN.byteSize());
      }
      this.run = Libc.memory(Mapping.shared(fd, 0, runBytes), arena);
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  /**
   * Uses a vCPU that is already there; {@link #close()} leaves it open.
   *
   * @param number its descriptor, from {@code KVM_CREATE_VCPU}
   * @param runBytes {@link Kvm#vcpuMmapSize()}: more is memory that is not there, which must not be
   *     touched
   * @throws LinuxException if the kernel refuses
   */
  public static KvmVcpu borrow(int number, long runBytes) {
    return new KvmVcpu(Fd.borrow(number, "KVM vCPU"), runBytes, -1);
  }

  /**
   * Enters the guest ({@code KVM_RUN}) until it exits.
   *
   * @return the {@code KVM_EXIT_} reason, 0 or more; or {@link #INTERRUPTED}, or {@link #TRY_AGAIN}
   * @throws LinuxException for any other error
   */
  public int run() {
    int result = Ioctl.tryCall(fd, KvmRequests.KVM_RUN, 0);
    if (result >= 0) {
      return exitReason();
    }
    if (result == INTERRUPTED || result == TRY_AGAIN) {
      return result;
    }
    throw Ioctl.failure(fd, KvmRequests.KVM_RUN, -result, null);
  }

  /**
   * Completes the last I/O exit without running the guest on: what an {@code in} reads is in its
   * register and the instruction is behind it only after the next {@code KVM_RUN}. Registers are
   * ready to be saved when this has returned {@link #INTERRUPTED}.
   *
   * @return {@link #INTERRUPTED}; or the reason of a further exit of the same instruction, to be
   *     served before the next call
   */
  public int completeIo() {
    setImmediateExit(true);
    try {
      return run();
    } finally {
      setImmediateExit(false);
    }
  }

  /** Whether the next {@code KVM_RUN} comes back at once, with {@link #INTERRUPTED}. */
  public void setImmediateExit(boolean on) {
    BYTE.setVolatile(kvmRun(), IMMEDIATE_EXIT, on ? (byte) 1 : (byte) 0);
  }

  /** Why {@code KVM_RUN} returned last, a {@code KVM_EXIT_} number. */
  public int exitReason() {
    return kvmRun().get(JAVA_INT, EXIT_REASON);
  }

  /** {@code KVM_EXIT_IO_IN} or {@code KVM_EXIT_IO_OUT}; as the next four, after an I/O exit. */
  public int ioDirection() {
    return kvmRun().get(JAVA_BYTE, IO_DIRECTION);
  }

  /** Bytes of one item: 1, 2 or 4. */
  public int ioSize() {
    return kvmRun().get(JAVA_BYTE, IO_SIZE);
  }

  /** The port, 0 to 65535. */
  public int ioPort() {
    return Short.toUnsignedInt(kvmRun().get(JAVA_SHORT, IO_PORT));
  }

  /** How many items; more than 1 for string instructions only. */
  public int ioCount() {
    return kvmRun().get(JAVA_INT, IO_COUNT);
  }

  /** Bytes from the start of {@link #kvmRun()} to the first item, for either direction. */
  public long ioDataOffset() {
    return kvmRun().get(JAVA_LONG, IO_DATA_OFFSET);
  }

  /** The first item that the guest wrote, zero-extended. */
  public long ioData() {
    MemorySegment memory = kvmRun();
    long offset = ioDataOffset();
    return switch (ioSize()) {
      case 1 -> memory.get(JAVA_BYTE, offset) & 0xffL;
      case 2 -> memory.get(JAVA_SHORT_UNALIGNED, offset) & 0xffffL;
      case 4 -> memory.get(JAVA_INT_UNALIGNED, offset) & 0xffff_ffffL;
      default -> memory.get(JAVA_LONG_UNALIGNED, offset);
    };
  }

  /**
   * {@link KvmLayouts#KVM_RUN} and all that follows it, for what has no accessor here.
   *
   * @throws ClosedException after close
   */
  public MemorySegment kvmRun() {
    if (fd.isClosed()) {
      throw new ClosedException(fd.label());
    }
    return run;
  }

  /** Fills {@link KvmLayouts#KVM_REGS}. */
  public void getRegs(MemorySegment regs) {
    call(KvmRequests.KVM_GET_REGS, regs, KvmLayouts.KVM_REGS);
  }

  /** Takes over {@link KvmLayouts#KVM_REGS}. */
  public void setRegs(MemorySegment regs) {
    call(KvmRequests.KVM_SET_REGS, regs, KvmLayouts.KVM_REGS);
  }

  /** Fills {@link KvmLayouts#KVM_SREGS}. */
  public void getSregs(MemorySegment sregs) {
    call(KvmRequests.KVM_GET_SREGS, sregs, KvmLayouts.KVM_SREGS);
  }

  /** Takes over {@link KvmLayouts#KVM_SREGS}. */
  public void setSregs(MemorySegment sregs) {
    call(KvmRequests.KVM_SET_SREGS, sregs, KvmLayouts.KVM_SREGS);
  }

  /**
   * Sets what the guest's {@code cpuid} says.
   *
   * @param cpuid a {@code struct kvm_cpuid2} with its entries, as {@link Kvm#getSupportedCpuid}
   *     gives
   */
  public void setCpuid2(MemorySegment cpuid) {
    checkSize(cpuid, KvmLayouts.KVM_CPUID2.byteSize());
    checkSize(cpuid, Kvm.cpuidBytes(cpuid.get(JAVA_INT, 0)));
    Ioctl.call(fd, KvmRequests.KVM_SET_CPUID2, cpuid);
  }

  /**
   * Sets which signals are blocked while {@code KVM_RUN} runs, in place of the thread's own mask.
   *
   * @param mask bit n-1 is signal n
   */
  public void setSignalMask(long mask) {
    try (Arena call = Arena.ofConfined()) {
      MemorySegment argument = call.allocate(12, 8);
      argument.set(JAVA_INT, 0, Long.BYTES);
      argument.set(JAVA_LONG_UNALIGNED, 4, mask);
      Ioctl.call(fd, KvmRequests.KVM_SET_SIGNAL_MASK, argument);
    }
  }

  /**
   * Maps this vCPU's dirty ring. A mapping goes on where the one before ended, by whichever owner;
   * but two at a time would take entries from each other.
   *
   * @param bytes as given to {@code KVM_CAP_DIRTY_LOG_RING}
   * @throws IllegalArgumentException if the VM has no ring of that size
   * @throws IllegalStateException if it is mapped already by this owner: close that mapping first
   * @throws LinuxException if the kernel refuses
   */
  public synchronized KvmDirtyRing mapDirtyRing(long bytes) {
    if (ring != null && !ring.isClosed()) {
      throw new IllegalStateException(
          "the dirty ring of " + fd + " is mapped already: close that mapping first");
    }
    ring = KvmDirtyRing.map(fd, bytes, ring == null ? ringStart : ring.next());
    return ring;
  }

  private void call(Ioctl.Request request, MemorySegment argument, MemoryLayout layout) {
    checkSize(argument, layout.byteSize());
    Ioctl.call(fd, request, argument);
  }

  private static void checkSize(MemorySegment argument, long bytes) {
    if (argument.byteSize() < bytes) {
      throw new IllegalArgumentException(
          argument.byteSize() + " bytes where the kernel uses " + bytes);
    }
  }

  /** Unmaps {@code struct kvm_run}, closes the handle, and the descriptor unless it is borrowed. */
  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      fd.close();
      arena.close();
    }
  }
}
