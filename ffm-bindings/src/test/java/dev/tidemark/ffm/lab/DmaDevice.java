package dev.tidemark.ffm.lab;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.vfio.VfioDevice;
import dev.tidemark.ffm.vfio.VfioGroup;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.VarHandle;

/**
 * A VFIO device of the lab's own that writes guest memory, logs what it wrote, and migrates; the
 * Java twin of {@code bench/lab/dmalog}. Opened, it is as if nobody had used it before.
 *
 * <p>Threading: any thread. A write that waits with its mark holds up whatever wants no write in
 * flight: changes of state, start and stop of the log, reports while they quiesce, and settings.
 */
public class DmaDevice implements AutoCloseable {
  /** Without migration. */
  public static final int PLAIN = 0;

  /** With {@code VFIO_MIGRATION_STOP_COPY}. */
  public static final int STOP_COPY = 1;

  /** With {@code VFIO_MIGRATION_STOP_COPY} and {@code P2P}. */
  public static final int P2P = 2;

  /** With {@code VFIO_MIGRATION_STOP_COPY} and {@code PRE_COPY}. */
  public static final int PRE_COPY = 3;

  /** With all that migration has. */
  public static final int FULL = 4;

  /** The same once more, as a source and a destination. */
  public static final int FULL_TOO = 5;

  // enum dmalog_register, in its order.
  private enum Register {
    PAGE_SIZES,
    MAX_RANGES,
    MAX_SPAN,
    STRICT,
    CLIP,
    QUIESCE,
    MARK_DELAY,
    DROP,
    FAIL_START,
    FAIL_REPORT,
    FAIL_AFTER,
    FAIL_STATE,
    BLOB_BYTES,
    BLOB_SEED,
    DMA_IOVA,
    DMA_LENGTH,
    DMA_BYTES,
    DMA_RATE,
    DMA_SEED,
    DMA_RUN,
    DMA_BURST,
    PRECOPY_DIRTY,
    CLEAR,
    WRITES,
    ERRORS,
    LAST_ERROR,
    MARKS,
    DROPPED,
    IN_FLIGHT,
    REPORTS,
    LOGGING,
    REMOVAL
  }

  private static final long RECORD = 1L << 61;
  private static final long DMA = 1L << 62;

  private static final Linker.Option CAPTURE = Linker.Option.captureCallState("errno");
  private static final StructLayout STATE = Linker.Option.captureStateLayout();
  private static final VarHandle ERRNO = STATE.varHandle(PathElement.groupElement("errno"));
  private static final MethodHandle PREAD = bind("pread");
  private static final MethodHandle PWRITE = bind("pwrite");

  private final VfioDevice device;

  private DmaDevice(VfioDevice device) {
    this.device = device;
  }

  @SuppressWarnings("restricted")
  private static MethodHandle bind(String name) {
    Linker linker = Linker.nativeLinker();
    return linker.downcallHandle(
        linker.defaultLookup().findOrThrow(name),
        FunctionDescriptor.of(JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG, JAVA_LONG),
        CAPTURE);
  }

  /**
   * Opens a device by its character device.
   *
   * @param number {@link #PLAIN} or another
   */
  public static DmaDevice open(int number, Iommufd iommufd) {
    VfioDevice device = VfioDevice.open(names(number).cdev());
    try {
      device.bindIommufd(iommufd);
    } catch (RuntimeException e) {
      device.close();
      throw e;
    }
    return new DmaDevice(device);
  }

  /**
   * Opens a device of a group that is in a container.
   *
   * @param group opened by {@link #names}' path
   */
  public static DmaDevice open(int number, VfioGroup group) {
    return new DmaDevice(group.openDevice(names(number).name()));
  }

  /**
   * A device that is open already.
   *
   * @param number its descriptor, left open
   */
  public static DmaDevice borrow(int number) {
    return new DmaDevice(VfioDevice.borrow(number));
  }

  /**
   * The same device once more; while this is open, the device is, whatever happens to the other.
   */
  public DmaDevice share() {
    int number = device.fd().acquire();
    return new DmaDevice(VfioDevice.borrow(number)) {
      @Override
      public void close() {
        super.close();
        DmaDevice.this.device.fd().release();
      }
    };
  }

  /** Where a device is. */
  public static LabDevices names(int number) {
    return LabDevices.dmalog(number);
  }

  /** The device as any other; closed with this. */
  public VfioDevice vfio() {
    return device;
  }

  private long transfer(MethodHandle call, String name, MemorySegment data, long at) {
    Fd fd = device.fd();
    int number = fd.acquire();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      long done = (long) call.invokeExact(state, number, data, data.byteSize(), at);
      if (done < 0) {
        throw new LinuxException(
            "%s(%s, 0x%x)".formatted(name, fd, at), (int) ERRNO.get(state, 0L));
      }
      return done;
    } catch (RuntimeException | Error e) {
      throw e;
    } catch (Throwable t) {
      throw new AssertionError(t);
    } finally {
      fd.release();
    }
  }

  private void set(Register register, long value) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment data = arena.allocateFrom(JAVA_LONG, value);
      transfer(PWRITE, "set " + register, data, register.ordinal() * 8L);
    }
  }

  private long get(Register register) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment data = arena.allocate(JAVA_LONG);
      transfer(PREAD, "get " + register, data, register.ordinal() * 8L);
      return data.get(JAVA_LONG, 0);
    }
  }

  /**
   * Which pages the device can track in; first 4 KiB, 64 KiB and 2 MiB.
   *
   * @param sizes bytes, powers of two
   */
  public void trackIn(long... sizes) {
    long all = 0;
    for (long size : sizes) {
      all |= size;
    }
    set(Register.PAGE_SIZES, all);
  }

  /** How many ranges the device can track; more are merged, what is between them included. */
  public void maxRanges(int ranges) {
    set(Register.MAX_RANGES, ranges);
  }

  /**
   * How long a range may be that the device tracks; it refuses a longer one with {@code E2BIG}.
   *
   * @param bytes 1 to 2^63 - 1
   */
  public void maxSpan(long bytes) {
    set(Register.MAX_SPAN, bytes);
  }

  /** Whether a report must be inside one range; first not. */
  public void strict(boolean on) {
    set(Register.STRICT, on ? 1 : 0);
  }

  /** Whether a report sets no bits but those asked for; first it does so. */
  public void clip(boolean on) {
    set(Register.CLIP, on ? 1 : 0);
  }

  /** Whether a report waits for writes in flight; first it does so. */
  public void quiesce(boolean on) {
    set(Register.QUIESCE, on ? 1 : 0);
  }

  /**
   * How long each mark comes after its data. Writes that wait now go on at once.
   *
   * @param micros microseconds; 1 s at most for the device's own thread
   */
  public void delayMarks(int micros) {
    set(Register.MARK_DELAY, micros);
  }

  /** Has each write wait with its mark until {@link #releaseMarks}, an hour at most. */
  public void holdMarks() {
    set(Register.MARK_DELAY, 0xffff_ffffL);
  }

  /** Ends {@link #holdMarks}. */
  public void releaseMarks() {
    delayMarks(0);
  }

  /**
   * Has the device lose marks: what a test of its log must notice.
   *
   * @param nth every so many-th; 0 for none
   */
  public void dropEvery(int nth) {
    set(Register.DROP, nth);
  }

  /**
   * Has each start of the log fail.
   *
   * @param errno with this; 0 for no more
   */
  public void refuseLogging(int errno) {
    set(Register.FAIL_START, errno);
  }

  /**
   * Has one report fail with {@code EIO}.
   *
   * @param nth 1 for the next
   * @param pages once it has delivered so many tracked pages at least
   */
  public void failReport(int nth, long pages) {
    set(Register.FAIL_AFTER, pages);
    set(Register.FAIL_REPORT, nth);
  }

  /** Has the next change of the migration state fail, and leave the device in ERROR. */
  public void failNextState(int errno) {
    set(Register.FAIL_STATE, errno);
  }

  /**
   * How large the device's state is.
   *
   * @param bytes a multiple of 8, up to 64 MiB
   * @param seed of its content
   */
  public void state(long bytes, long seed) {
    set(Register.BLOB_BYTES, bytes);
    set(Register.BLOB_SEED, seed);
  }

  /** In a pre-copy phase: so many bytes of state changed, up to 1 MiB in all. */
  public void dirtyState(long bytes) {
    set(Register.PRECOPY_DIRTY, bytes);
  }

  /** Writes memory that the device sees at an address; returns with the mark made. */
  public void write(long iova, MemorySegment data) {
    long done = 0;
    while (done < data.byteSize()) {
      done += transfer(PWRITE, "DMA write", data.asSlice(done), DMA + iova + done);
    }
  }

  /** Writes 8 bytes that the device sees at an address. */
  public void write(long iova, long value) {
    try (Arena arena = Arena.ofConfined()) {
      write(iova, arena.allocateFrom(JAVA_LONG, value));
    }
  }

  /** Reads memory that the device sees at an address. */
  public void read(long iova, MemorySegment data) {
    long done = 0;
    while (done < data.byteSize()) {
      done += transfer(PREAD, "DMA read", data.asSlice(done), DMA + iova + done);
    }
  }

  /**
   * Gives the device something to do by itself: writes of values that do not repeat, each inside a
   * page at random. All of it follows from the seed.
   *
   * @param iova the first page
   * @param length bytes, whole pages
   * @param bytes of each write, 1 to 4096
   * @param seed of the next write
   */
  public void program(long iova, long length, int bytes, long seed) {
    set(Register.DMA_IOVA, iova);
    set(Register.DMA_LENGTH, length);
    set(Register.DMA_BYTES, bytes);
    set(Register.DMA_SEED, seed);
  }

  /**
   * Has the device's own thread write; it pauses where the migration state says so.
   *
   * @param rate writes a second; 0 for as many as it can
   */
  public void run(long rate) {
    set(Register.DMA_RATE, rate);
    set(Register.DMA_RUN, 1);
  }

  /** Ends {@link #run}; no write is in flight then. */
  public void pause() {
    set(Register.DMA_RUN, 0);
  }

  /** Whether the device writes by itself, or would if its migration state let it. */
  public boolean isRunning() {
    return get(Register.DMA_RUN) != 0;
  }

  /** Does so many writes of the program in the calling thread. */
  public void burst(long writes) {
    set(Register.DMA_BURST, writes);
  }

  /** Forgets the record of writes and the counters. */
  public void clear() {
    set(Register.CLEAR, 1);
  }

  /**
   * The device's own record: which 4 KiB pages it wrote, marked or not.
   *
   * @param iova of bit 0, a multiple of 32 KiB
   * @param bitmap where the bits go
   */
  public void written(long iova, MemorySegment bitmap) {
    if ((iova & 0x7fff) != 0) {
      throw new IllegalArgumentException("0x%x is in the middle of a byte".formatted(iova));
    }
    long done = 0;
    while (done < bitmap.byteSize()) {
      done += transfer(PREAD, "record", bitmap.asSlice(done), RECORD + (iova >>> 15) + done);
    }
  }

  /** Writes that went well. */
  public long writes() {
    return get(Register.WRITES);
  }

  /** DMA that went wrong. */
  public long errors() {
    return get(Register.ERRORS);
  }

  /** The last errno of that, positive; 0 for none. */
  public int lastError() {
    return (int) get(Register.LAST_ERROR);
  }

  /** Tracked pages that were marked, those dropped included. */
  public long marks() {
    return get(Register.MARKS);
  }

  /** Marks that were lost on purpose. */
  public long dropped() {
    return get(Register.DROPPED);
  }

  /** Writes whose data is there and whose mark waits. */
  public long inFlight() {
    return get(Register.IN_FLIGHT);
  }

  /** Reports that reached the device. */
  public long reports() {
    return get(Register.REPORTS);
  }

  /** Bytes of a tracked page; 0 while it does not log. */
  public long logging() {
    return get(Register.LOGGING);
  }

  /** How often the kernel asked for the device back. */
  public long removalRequests() {
    return get(Register.REMOVAL);
  }

  @Override
  public void close() {
    device.close();
  }

  @Override
  public String toString() {
    return device.toString();
  }
}
