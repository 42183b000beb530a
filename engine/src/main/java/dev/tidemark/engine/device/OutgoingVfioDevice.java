package dev.tidemark.engine.device;

import static dev.tidemark.ffm.vfio.VfioUapi.*;

import dev.tidemark.engine.migrate.OutgoingDevice;
import dev.tidemark.engine.stream.SectionOutput;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.vfio.VfioDevice;
import dev.tidemark.ffm.vfio.VfioMigrationStream;
import dev.tidemark.ffm.vfio.VfioMigrationStream.PrecopyInfo;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * A VFIO device that leaves: PRE_COPY while the guest runs, PRE_COPY_P2P or RUNNING_P2P, STOP_COPY,
 * and STOP at the end; RUNNING if the guest stays, through a reset if the device is in ERROR or
 * cannot get there otherwise (a reset loses the device's state, as far as it was not lost before).
 * Phases that the device does not have are left out.
 *
 * <p>The section's framing is QEMU's (name {@code PATH/vfio}, version 1, its tags). What QEMU sends
 * besides is not here: a PCI device's configuration space belongs to the VMM's own sections, so a
 * QEMU is no peer for such a guest, and no promise is made that it becomes one.
 *
 * <p>Footprint: 1 MiB off-heap while its state goes out. Cost: one read and one copy per byte of
 * state.
 */
public final class OutgoingVfioDevice implements OutgoingDevice {
  /** What QEMU takes for the state of a device that does not tell how much it has. */
  private static final long UNKNOWN_BYTES = 100L << 30;

  private final String name;
  private final VfioDevice device;
  private final boolean p2p;
  private final boolean preCopy;
  private Arena arena;
  private MemorySegment buffer;
  private VfioMigrationStream stream;
  private boolean stopped;
  private boolean initialDataSent;
  private long preCopyBytes;
  private long stopCopyBytes;

  /**
   * @param path what tells it from the guest's other devices, the same at both ends, such as {@code
   *     0000:00:02.0}
   * @param device bound, or from a group, and RUNNING; borrowed
   * @throws IllegalArgumentException if it cannot migrate
   */
  public OutgoingVfioDevice(String path, VfioDevice device) {
    long flags = device.migrationFlags();
    if ((flags & VFIO_MIGRATION_STOP_COPY) == 0) {
      throw new IllegalArgumentException(
          path + " cannot migrate, its driver says: unplug it first (" + device + ")");
    }
    this.name = VfioStateFormat.sectionName(path);
    this.device = device;
    this.p2p = (flags & VFIO_MIGRATION_P2P) != 0;
    this.preCopy = (flags & VFIO_MIGRATION_PRE_COPY) != 0;
    this.initialDataSent = !preCopy;
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public int instance() {
    return 0;
  }

  @Override
  public int version() {
    return VfioStateFormat.VERSION;
  }

  /** How many bytes of state went out while the guest ran. */
  public long preCopyBytes() {
    return preCopyBytes;
  }

  /** How many bytes of state went out with the guest stopped. */
  public long stopCopyBytes() {
    return stopCopyBytes;
  }

  @Override
  public long bytesSaved() {
    return preCopyBytes + stopCopyBytes;
  }

  @Override
  public void start() {
    closeStream();
    arena = Arena.ofShared();
    buffer = arena.allocate(VfioStateFormat.CHUNK, 64);
    stopped = false;
    initialDataSent = !preCopy;
    if (preCopy) {
      stream = device.setMigDeviceState(VFIO_DEVICE_STATE_PRE_COPY).orElseThrow();
    }
  }

  @Override
  public void setup(SectionOutput out) {
    out.be64(VfioStateFormat.SETUP_STATE);
    out.be64(VfioStateFormat.END_OF_STATE);
  }

  @Override
  public void part(SectionOutput out) {
    if (stream != null) {
      preCopyBytes += data(out);
      if (!initialDataSent && stream.precopyInfo().initialBytes() == 0) {
        initialDataSent = true;
        out.be64(VfioStateFormat.INIT_DATA_SENT);
      }
    }
    out.be64(VfioStateFormat.END_OF_STATE);
  }

  /** Writes a chunk of what the device tells; 0 if it tells nothing. */
  private long data(SectionOutput out) {
    long length = stream.read(buffer);
    if (length > 0) {
      out.be64(VfioStateFormat.DATA_STATE);
      out.be64(length);
      out.bytes(length == buffer.byteSize() ? buffer : buffer.asSlice(0, length));
    }
    return length;
  }

  @Override
  public long pendingBytes() {
    long stopCopy = UNKNOWN_BYTES;
    try {
      stopCopy = device.migDataSize();
    } catch (LinuxException e) {
      if (e.errno() != Errno.ENOTTY) {
        throw e;
      }
    }
    long now = 0;
    if (stream != null && !stopped) {
      PrecopyInfo info = stream.precopyInfo();
      now = sane(sane(info.initialBytes()) + sane(info.dirtyBytes()));
    }
    return Math.max(sane(stopCopy), now);
  }

  /** Drivers have been seen to answer with almost 2^64. */
  private static long sane(long bytes) {
    return bytes < 0 || bytes > Long.MAX_VALUE / 4 ? UNKNOWN_BYTES : bytes;
  }

  @Override
  public boolean initialDataSent() {
    return initialDataSent;
  }

  @Override
  public void quiesce() {
    if (p2p) {
      device.setMigDeviceState(
          preCopy ? VFIO_DEVICE_STATE_PRE_COPY_P2P : VFIO_DEVICE_STATE_RUNNING_P2P);
    }
  }

  @Override
  public void stop() {
    device.setMigDeviceState(VFIO_DEVICE_STATE_STOP_COPY).ifPresent(opened -> stream = opened);
    stopped = true;
  }

  @Override
  public void complete(SectionOutput out) {
    for (long length = data(out); length > 0; length = data(out)) {
      stopCopyBytes += length;
    }
    out.be64(VfioStateFormat.END_OF_STATE);
  }

  @Override
  public void leave() {
    closeStream();
    device.setMigDeviceState(VFIO_DEVICE_STATE_STOP);
  }

  @Override
  public void prepareToRun() {
    closeStream();
    int state = device.migDeviceState();
    if (state == VFIO_DEVICE_STATE_ERROR) {
      throw afterReset("it was in ERROR");
    }
    if (p2p && state != VFIO_DEVICE_STATE_RUNNING && state != VFIO_DEVICE_STATE_PRE_COPY) {
      device.setMigDeviceState(VFIO_DEVICE_STATE_RUNNING_P2P);
    }
  }

  @Override
  public void run() {
    try {
      device.setMigDeviceState(VFIO_DEVICE_STATE_RUNNING);
    } catch (LinuxException e) {
      throw afterReset(e.getMessage());
    }
  }

  /** Resets the device, which says so by an exception: the guest has to bring it up again. */
  private IllegalStateException afterReset(String why) {
    device.reset();
    return new IllegalStateException(
        "the device was reset and has lost its state, the guest must set it up again: " + why);
  }

  private void closeStream() {
    if (stream != null) {
      stream.close();
      stream = null;
    }
    if (arena != null) {
      arena.close();
      arena = null;
    }
  }
}
