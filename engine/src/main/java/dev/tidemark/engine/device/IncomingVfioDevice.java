package dev.tidemark.engine.device;

import static dev.tidemark.ffm.vfio.VfioUapi.*;

import dev.tidemark.engine.migrate.IncomingDevice;
import dev.tidemark.engine.stream.SectionInput;
import dev.tidemark.engine.stream.StreamException;
import dev.tidemark.ffm.vfio.VfioDevice;
import dev.tidemark.ffm.vfio.VfioMigrationStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * A VFIO device that arrives: RESUMING while its state is loaded, STOP when it is complete, and
 * after go RUNNING_P2P, if the device has it, and RUNNING. See {@link OutgoingVfioDevice} for what
 * is in the section and what is not.
 *
 * <p>Footprint: 1 MiB off-heap from {@link #start()} to {@link #end()} or {@link #abort()}. Cost:
 * one copy and one write per byte of state.
 */
public final class IncomingVfioDevice implements IncomingDevice {
  private final String name;
  private final VfioDevice device;
  private final boolean p2p;
  private Arena arena;
  private MemorySegment buffer;
  private VfioMigrationStream stream;
  private boolean started;
  private boolean setUp;

  /**
   * @param path the same as at the source
   * @param device bound, or from a group, and RUNNING; borrowed
   * @throws IllegalArgumentException if it cannot migrate
   */
  public IncomingVfioDevice(String path, VfioDevice device) {
    long flags = device.migrationFlags();
    if ((flags & VFIO_MIGRATION_STOP_COPY) == 0) {
      throw new IllegalArgumentException(
          path + " cannot migrate, its driver says: no guest arrives with it (" + device + ")");
    }
    this.name = VfioStateFormat.sectionName(path);
    this.device = device;
    this.p2p = (flags & VFIO_MIGRATION_P2P) != 0;
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

  @Override
  public void start() {
    started = true;
    setUp = false;
    free();
    arena = Arena.ofShared();
    buffer = arena.allocate(VfioStateFormat.CHUNK, 64);
    stream = device.setMigDeviceState(VFIO_DEVICE_STATE_RESUMING).orElseThrow();
  }

  @Override
  public void load(SectionInput input) {
    while (true) {
      long at = input.position();
      long tag = input.be64();
      if (!setUp && tag != VfioStateFormat.SETUP_STATE) {
        throw wrong(at, "does not begin with SETUP_STATE, but with 0x" + Long.toHexString(tag));
      }
      if (tag == VfioStateFormat.END_OF_STATE) {
        return;
      } else if (tag == VfioStateFormat.SETUP_STATE && !setUp) {
        setUp = true;
      } else if (tag == VfioStateFormat.DATA_STATE) {
        data(input);
      } else if (tag == VfioStateFormat.CONFIG_STATE) {
        throw wrong(at, "has the configuration space of a QEMU's device, which is not loaded here");
      } else if (tag != VfioStateFormat.INIT_DATA_SENT) {
        throw wrong(at, "has a tag that is not known, or not here: 0x" + Long.toHexString(tag));
      }
    }
  }

  private void data(SectionInput input) {
    long at = input.position();
    long length = input.be64();
    if (length <= 0) {
      throw wrong(at, "has data of " + Long.toUnsignedString(length) + " bytes");
    }
    for (long left = length; left > 0; left -= buffer.byteSize()) {
      MemorySegment piece = left >= buffer.byteSize() ? buffer : buffer.asSlice(0, left);
      input.bytes(piece);
      stream.write(piece);
    }
  }

  private StreamException wrong(long at, String what) {
    return new StreamException("stream byte " + at + ": section " + name + " " + what);
  }

  @Override
  public void end() {
    stream.close();
    free();
    device.setMigDeviceState(VFIO_DEVICE_STATE_STOP);
  }

  private void free() {
    if (arena != null) {
      arena.close();
      arena = null;
    }
  }

  @Override
  public void prepareToRun() {
    if (p2p) {
      device.setMigDeviceState(VFIO_DEVICE_STATE_RUNNING_P2P);
    }
  }

  @Override
  public void run() {
    device.setMigDeviceState(VFIO_DEVICE_STATE_RUNNING);
  }

  @Override
  public void abort() {
    if (!started) {
      return;
    }
    free();
    if (stream != null) {
      stream.close();
    }
    device.reset();
  }
}
