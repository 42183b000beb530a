package dev.tidemark.ffm.kvm;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import dev.tidemark.ffm.internal.NativeMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import java.util.Arrays;
import java.util.Locale;

/**
 * A VM of KVM: its memory slots and their dirty logs.
 *
 * <p>Threading: any thread. The dirty-log calls of one VM run one after the other, here as in the
 * kernel ({@code slots_lock}). Cost: one system call a method; {@link #getDirtyLog}, {@link
 * #clearDirtyLog} and {@link #resetDirtyRings} allocate nothing of their own.
 */
public final class KvmVm implements AutoCloseable {
  private static final long REGION_SLOT = region("slot");
  private static final long REGION_FLAGS = region("flags");
  private static final long REGION_GPA = region("guest_phys_addr");
  private static final long REGION_SIZE = region("memory_size");
  private static final long REGION_HVA = region("userspace_addr");

  private static final long GET_SLOT = KvmLayouts.offset(KvmLayouts.KVM_DIRTY_LOG, "slot");
  private static final long GET_BITMAP =
      KvmLayouts.offset(KvmLayouts.KVM_DIRTY_LOG, "dirty_bitmap");

  private static final long CLEAR_SLOT = clear("slot");
  private static final long CLEAR_PAGES = clear("num_pages");
  private static final long CLEAR_FIRST = clear("first_page");
  private static final long CLEAR_BITMAP = clear("dirty_bitmap");

  /** x86 has one for system management mode. */
  private static final int ADDRESS_SPACES = 2;

  private static final long CAP_CAP = KvmLayouts.offset(KvmLayouts.KVM_ENABLE_CAP, "cap");
  private static final long CAP_ARGS = KvmLayouts.offset(KvmLayouts.KVM_ENABLE_CAP, "args");

  /**
   * The system call, as the C library takes its own signals, 32 and 33, out of every mask: by 33 it
   * has each thread join in another thread's {@code setuid} and the like. -1, elsewhere, is ENOSYS.
   */
  private static final long RT_SIGPROCMASK =
      switch (System.getProperty("os.arch")) {
        case "amd64" -> 14;
        case "aarch64" -> 135;
        default -> -1;
      };

  private static final int SIG_BLOCK = 0;
  private static final int SIG_SETMASK = 2;

  /** The kernel's own: a bit for each of its 64 signals. */
  private static final long SIGSET_BYTES = 8;

  /**
   * All signals but those that a thread raises by an instruction of its own: SIGILL, SIGTRAP,
   * SIGBUS, SIGFPE, SIGSEGV, SIGSYS. The JVM lives by some of these; blocked they end the process.
   */
  private static final MemorySegment BLOCKED = Arena.global().allocate(SIGSET_BYTES, 8);

  private static final int RUSAGE_THREAD = 1;
  private static final long RUSAGE_BYTES = 144;
  private static final long RUSAGE$nvcsw = 128;

  /** A call returns early for a signal; so often without any progress is no accident. */
  private static final int RESETS_WITHOUT_PROGRESS = 1000;

  static {
    long own = 0;
    for (int signal : new int[] {4, 5, 7, 8, 11, 31}) {
      own |= 1L << signal - 1;
    }
    BLOCKED.set(JAVA_LONG, 0, ~own);
  }

  private final Fd fd;

  /** The mask to restore, guarded by itself, as are the next two. */
  private final MemorySegment signals = Arena.ofAuto().allocate(SIGSET_BYTES, 8);

  private final MemorySegment usage = Arena.ofAuto().allocate(RUSAGE_BYTES, 8);
  private boolean slept;

  /** The arguments of the dirty-log calls, guarded by itself. */
  private final MemorySegment log = Arena.ofAuto().allocate(KvmLayouts.KVM_CLEAR_DIRTY_LOG);

  /**
   * The pages of the slots that were set here, by address space and number; 0 for others. Guarded
   * by the arguments.
   */
  private final long[][] slotPages = new long[ADDRESS_SPACES][0];

  KvmVm(Fd fd) {
    this.fd = fd;
  }

  private static long region(String member) {
    return KvmLayouts.offset(KvmLayouts.KVM_USERSPACE_MEMORY_REGION, member);
  }

  private static long clear(String member) {
    return KvmLayouts.offset(KvmLayouts.KVM_CLEAR_DIRTY_LOG, member);
  }

  /**
   * Uses a VM that is already there; {@link #close()} leaves it open.
   *
   * @param number its descriptor, from {@code KVM_CREATE_VM}
   */
  public static KvmVm borrow(int number) {
    return new KvmVm(Fd.borrow(number, "KVM VM"));
  }

  /**
   * Asks for a capability of this VM ({@code KVM_CHECK_EXTENSION}).
   *
   * @param cap a {@code KVM_CAP_} number
   * @return 0 if there is none; else more than 0, whose meaning depends on the capability
   */
  public int checkExtension(int cap) {
    return Ioctl.call(fd, KvmRequests.KVM_CHECK_EXTENSION, cap);
  }

  /**
   * Switches a capability on ({@code KVM_ENABLE_CAP}).
   *
   * @param cap a {@code KVM_CAP_} number
   * @param argument {@code args[0]}: flags for {@code KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2}, bytes of
   *     a ring for {@code KVM_CAP_DIRTY_LOG_RING} (which must be on before the first vCPU)
   * @throws LinuxException if the kernel refuses
   */
  public void enableCap(int cap, long argument) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment request = arena.allocate(KvmLayouts.KVM_ENABLE_CAP);
      request.set(JAVA_INT, CAP_CAP, cap);
      request.set(JAVA_LONG, CAP_ARGS, argument);
      int result = uninterrupted(fd, KvmRequests.KVM_ENABLE_CAP, request);
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            KvmRequests.KVM_ENABLE_CAP,
            -result,
            "capability " + cap + ", argument " + argument);
      }
    }
  }

  /**
   * Creates, changes or deletes a memory slot ({@code KVM_SET_USER_MEMORY_REGION}).
   *
   * <p>Memory-unsafe: a wrong address, length or lifetime here corrupts memory or ends the JVM. The
   * guest writes there whatever it is.
   *
   * @param slot its number, with the address space in the upper 16 bits
   * @param flags {@code KVM_MEM_} flags; switching {@code KVM_MEM_LOG_DIRTY_PAGES} off and on drops
   *     what was logged
   * @param guestPhysAddr bytes, at a page boundary
   * @param memorySize bytes, whole pages; 0 deletes the slot
   * @param userspaceAddr where the memory is mapped here; it must outlive the slot
   * @throws LinuxException if the kernel refuses
   */
  public void setUserMemoryRegion(
      int slot, int flags, long guestPhysAddr, long memorySize, long userspaceAddr) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment region = arena.allocate(KvmLayouts.KVM_USERSPACE_MEMORY_REGION);
      region.set(JAVA_INT, REGION_SLOT, slot);
      region.set(JAVA_INT, REGION_FLAGS, flags);
      region.set(JAVA_LONG, REGION_GPA, guestPhysAddr);
      region.set(JAVA_LONG, REGION_SIZE, memorySize);
      region.set(JAVA_LONG, REGION_HVA, userspaceAddr);
      int result;
      synchronized (log) {
        result = uninterrupted(fd, KvmRequests.KVM_SET_USER_MEMORY_REGION, region);
        if (result >= 0) {
          remember(slot, memorySize >>> Pages.SHIFT);
        }
      }
      if (result < 0) {
        throw Ioctl.failure(
            fd,
            KvmRequests.KVM_SET_USER_MEMORY_REGION,
            -result,
            String.format(
                Locale.ROOT,
                "slot %d, flags %d, %d bytes of 0x%x at guest address 0x%x",
                slot,
                flags,
                memorySize,
                userspaceAddr,
                guestPhysAddr));
      }
    }
  }

  private void remember(int slot, long pages) {
    int space = slot >>> 16;
    int number = slot & 0xffff;
    if (space < ADDRESS_SPACES) {
      if (number >= slotPages[space].length) {
        slotPages[space] = Arrays.copyOf(slotPages[space], Math.max(16, 2 * number));
      }
      slotPages[space][number] = pages;
    }
  }

  /** The kernel writes for as many pages as the slot has, if fewer were said past the bitmap. */
  private void checkPages(int slot, long pages) {
    int space = slot >>> 16;
    int number = slot & 0xffff;
    if (space < ADDRESS_SPACES && number < slotPages[space].length) {
      long known = slotPages[space][number];
      if (known != 0 && known != pages) {
        throw new IllegalArgumentException(
            String.format(Locale.ROOT, "slot %d has %d pages, not %d", slot, known, pages));
      }
    }
  }

  /**
   * Bytes that the kernel writes for a slot's log: whole 64-bit words.
   *
   * @param pages the slot's pages
   */
  public static long bitmapBytes(long pages) {
    if (pages < 0) {
      throw new IllegalArgumentException(pages + " pages");
    }
    return (pages + 63) >>> 6 << 3;
  }

  /**
   * Reads a slot's dirty log, bit 0 being its first page ({@code KVM_GET_DIRTY_LOG}). The kernel
   * overwrites the bitmap. Without manual protect it also clears the log and protects the pages
   * again.
   *
   * <p>Memory-unsafe: a wrong address, length or lifetime here corrupts memory or ends the JVM. The
   * kernel writes for all pages of the slot. How many these are is known of slots that were set by
   * this object; of others put the bitmap's end at the end of a {@link
   * dev.tidemark.ffm.Mapping#guarded} one, where the kernel stops.
   *
   * @param slot its number, with the address space in the upper 16 bits
   * @param pages how many pages the slot has
   * @param bitmap native memory of at least {@link #bitmapBytes} bytes, alive until this returns
   * @throws IllegalArgumentException if the bitmap is too small, or the slot is known to have
   *     another number of pages
   * @throws LinuxException ENOENT if the slot does not log, ENXIO if the VM has a dirty ring
   */
  public void getDirtyLog(int slot, long pages, MemorySegment bitmap) {
    long address = NativeMemory.toWrite(bitmap, 0, bitmapBytes(pages));
    int result;
    synchronized (log) {
      checkPages(slot, pages);
      log.set(JAVA_INT, GET_SLOT, slot);
      log.set(JAVA_LONG, GET_BITMAP, address);
      result = uninterrupted(fd, KvmRequests.KVM_GET_DIRTY_LOG, log);
    }
    Reference.reachabilityFence(bitmap);
    if (result < 0) {
      throw Ioctl.failure(
          fd,
          KvmRequests.KVM_GET_DIRTY_LOG,
          -result,
          "slot "
              + slot
              + switch (-result) {
                case Errno.ENOENT -> " has no KVM_MEM_LOG_DIRTY_PAGES";
                case Errno.ENXIO -> ": the VM has a dirty ring, harvest that";
                default -> "";
              });
    }
  }

  /**
   * Clears pages of a slot's log and protects them again; with manual protect only ({@code
   * KVM_CLEAR_DIRTY_LOG}). Read the pages after it, never before: a write in between would be lost.
   *
   * @param slot its number, with the address space in the upper 16 bits
   * @param firstPage a multiple of 64
   * @param pages a multiple of 64, unless the range ends where the slot does; less than 2^32
   * @param bitmap native memory whose bit 0 is the first page: a set bit is a page to clear. Only
   *     bits that {@link #getDirtyLog} gave. Alive until this returns
   * @throws LinuxException if the kernel refuses
   */
  public void clearDirtyLog(int slot, long firstPage, long pages, MemorySegment bitmap) {
    clearDirtyLog(slot, firstPage, pages, bitmap, 0);
  }

  /**
   * As {@link #clearDirtyLog(int, long, long, MemorySegment)}, with a part of a bitmap.
   *
   * @param offset where in the bitmap the first page's bit is, in bytes: bit 0 of that byte
   */
  public void clearDirtyLog(
      int slot, long firstPage, long pages, MemorySegment bitmap, long offset) {
    if (pages >>> 32 != 0) {
      throw new IllegalArgumentException(pages + " pages: num_pages has 32 bits");
    }
    long address = NativeMemory.toRead(bitmap, offset, bitmapBytes(pages));
    int result;
    synchronized (log) {
      log.set(JAVA_INT, CLEAR_SLOT, slot);
      log.set(JAVA_INT, CLEAR_PAGES, (int) pages);
      log.set(JAVA_LONG, CLEAR_FIRST, firstPage);
      log.set(JAVA_LONG, CLEAR_BITMAP, address);
      result = uninterrupted(fd, KvmRequests.KVM_CLEAR_DIRTY_LOG, log);
    }
    Reference.reachabilityFence(bitmap);
    if (result < 0) {
      throw Ioctl.failure(
          fd,
          KvmRequests.KVM_CLEAR_DIRTY_LOG,
          -result,
          String.format(Locale.ROOT, "slot %d, %d pages from %d", slot, pages, firstPage));
    }
  }

  /**
   * Protects the pages of harvested ring entries again and frees these entries, on the rings of all
   * vCPUs ({@code KVM_RESET_DIRTY_RINGS}). Read pages only after that.
   *
   * <p>From Linux 6.17 on a signal that comes during the call makes the kernel leave up to 64 pages
   * unprotected whose entries it has freed and counted: no ring ever tells of their next writes. So
   * the signals of the calling thread are blocked meanwhile, those of the C library too, but for
   * those that an instruction of its own raises. What no mask blocks (a stop, a freezer, a tracer)
   * shows by a count that is short, unless it comes after the last entry was counted: see {@link
   * #sleptInReset()}. Task work that the kernel gives the thread without a sleep ({@code
   * TIF_NOTIFY_SIGNAL}) shows by nothing if it comes after the last entry was counted.
   *
   * @param harvested how many entries were harvested from all rings and not freed yet
   * @return true if the page of each of them is protected again; false if some may not be, because
   *     the call was interrupted or another number of entries was there. Their entries are free all
   *     the same. Then {@link #setUserMemoryRegion} without {@code KVM_MEM_LOG_DIRTY_PAGES} and
   *     with it again protects a slot's pages; after that, count all of them as written
   * @throws LinuxException EINVAL if the VM has no dirty ring
   * @throws IllegalStateException if the kernel frees fewer entries, however often it is asked
   */
  public boolean resetDirtyRings(long harvested) {
    synchronized (signals) {
      Libc.check(
          Libc.syscall(
              RT_SIGPROCMASK, SIG_BLOCK, BLOCKED.address(), signals.address(), SIGSET_BYTES),
          "rt_sigprocmask(SIG_BLOCK)");
      try {
        long sleeps = sleeps();
        long freed = resetOnce();
        slept = sleeps < 0 || sleeps() != sleeps;
        if (freed == harvested) {
          return true;
        }
        for (int idle = 0; freed < harvested; ) {
          long more = resetOnce();
          freed += more;
          idle = more > 0 ? 0 : idle + 1;
          if (idle == RESETS_WITHOUT_PROGRESS) {
            throw new IllegalStateException(
                String.format(
                    Locale.ROOT,
                    "KVM_RESET_DIRTY_RINGS on %s frees %d of %d harvested entries",
                    fd,
                    freed,
                    harvested));
          }
        }
        return false;
      } finally {
        Libc.syscall(RT_SIGPROCMASK, SIG_SETMASK, signals.address(), 0, SIGSET_BYTES);
      }
    }
  }

  /**
   * Whether the thread slept during the last {@link #resetDirtyRings} of this thread; true as well
   * if the kernel does not tell ({@code getrusage} fails). If it did, it may have been stopped
   * after the last entry was counted: then the pages of the last entries of one ring, within 63
   * pages of its last one, may be unprotected, although the count is right. Mostly it is the JVM
   * that made it wait.
   */
  public boolean sleptInReset() {
    synchronized (signals) {
      return slept;
    }
  }

  /** How often this thread has slept, or less than 0 if that cannot be known. */
  private long sleeps() {
    int result = Libc.getrusage(RUSAGE_THREAD, usage);
    return result < 0 ? result : usage.get(JAVA_LONG, RUSAGE$nvcsw);
  }

  private long resetOnce() {
    int result = Ioctl.tryCall(fd, KvmRequests.KVM_RESET_DIRTY_RINGS, 0);
    if (result < 0 && result != -Errno.EINTR) {
      throw Ioctl.failure(fd, KvmRequests.KVM_RESET_DIRTY_RINGS, -result, null);
    }
    return Math.max(0, result);
  }

  /**
   * Creates a vCPU ({@code KVM_CREATE_VCPU}). It lives as long as either owner is open.
   *
   * @param id 0 or more, not used yet
   * @param runBytes {@link Kvm#vcpuMmapSize()}: more is memory that is not there, which must not be
   *     touched
   * @throws LinuxException if the kernel refuses
   */
  public KvmVcpu createVcpu(int id, long runBytes) {
    int result = Ioctl.call(fd, KvmRequests.KVM_CREATE_VCPU, id);
    return new KvmVcpu(Fd.own(result, "KVM vCPU " + id), runBytes, 0);
  }

  /** Gives Intel's KVM three pages that it needs ({@code KVM_SET_TSS_ADDR}), below 4 GiB. */
  public void setTssAddr(long guestPhysAddr) {
    Ioctl.call(fd, KvmRequests.KVM_SET_TSS_ADDR, guestPhysAddr);
  }

  /** Gives Intel's KVM one page that it needs ({@code KVM_SET_IDENTITY_MAP_ADDR}), below 4 GiB. */
  public void setIdentityMapAddr(long guestPhysAddr) {
    try (Arena arena = Arena.ofConfined()) {
      Ioctl.call(
          fd, KvmRequests.KVM_SET_IDENTITY_MAP_ADDR, arena.allocateFrom(JAVA_LONG, guestPhysAddr));
    }
  }

  private static int uninterrupted(Fd fd, Ioctl.Request request, MemorySegment argument) {
    int result;
    do {
      result = Ioctl.tryCall(fd, request, argument);
    } while (result == -Errno.EINTR);
    return result;
  }

  /** Closes the handle, and the descriptor unless it is borrowed. */
  @Override
  public void close() {
    fd.close();
  }
}
