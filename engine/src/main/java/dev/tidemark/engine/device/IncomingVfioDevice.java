package dev.tidemark.engine.device;

import static dev.tidemark.ffm.vfio.VfioUapi.*;

import dev.tidemark.engine.migrate.IncomingDevice;
import dev.tidemark.engine.stream.SectionInput;
import dev.tidemark.ffm.vfio.VfioDevice;
import dev.tidemark.ffm.vfio.VfioMigrationStream;
import java.lang.foreign.Arena;

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
  private VfioStateInput state;
  private VfioMigrationStream stream;
  private boolean started;

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
    free();
    arena = Arena.ofShared();
    stream = device.setMigDeviceState(VFIO_DEVICE_STATE_RESUMING).orElseThrow();
    state = new VfioStateInput(name, arena.allocate(VfioStateFormat.CHUNK, 64), stream::write);
  }

  @Override
  public void load(SectionInput input) {
    state.load(input);
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
