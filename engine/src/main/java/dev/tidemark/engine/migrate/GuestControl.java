package dev.tidemark.engine.migrate;

/**
 * How the migration stops and starts the guest: the VMM's side of the switch-over.
 *
 * <p>Threading: called by the thread that runs the migration.
 */
public interface GuestControl {
  /**
   * Stops the guest, for good as far as the caller knows. When this returns, every vCPU is out of
   * {@code KVM_RUN} with its last I/O exit completed ({@code KVM_RUN} once more with {@code
   * immediate_exit}), devices are stopped except the {@link OutgoingDevice}s, which the migration
   * stops next, the VMM's own I/O into guest memory is drained and marked in its log: nothing else
   * writes guest memory any more.
   */
  void stop();

  /**
   * Lets the guest run: at the source after a migration that failed, at the destination after go.
   * The devices that the migration knows run already. If this throws, no vCPU may be left running:
   * the other side hears that the guest runs nowhere.
   */
  void resume();
}
