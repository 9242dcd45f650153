# From the Verilog of the core to a bitstream: package, join, implement. Vivado runs it with one argument, a file of
# settings that `spikeloom_hw.boards.vivado` writes.

set settings_file [lindex $argv 0]
if {$settings_file eq ""} {
    error "Give the file of settings: vivado -mode batch -source vivado_build.tcl -tclargs settings.tcl"
}
source $settings_file

set version [lindex [split [version -short] _] 0]
if {[package vcompare $version $oldest_version] < 0} {
    error "This is Vivado $version; the scripts need $oldest_version or newer."
}

source [file join $script_dir vivado_package.tcl]
source [file join $script_dir vivado_design.tcl]
source [file join $script_dir vivado_implement.tcl]
